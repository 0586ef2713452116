-- Version 3: what people say of a version's decisions is looked up at every complaint.

CREATE INDEX decision_adapter ON decision (adapter, seq);
