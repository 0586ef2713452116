-- Version 4: after a restart the guard looks up what each actuator was told last; people look up what became uncertain.

CREATE INDEX command_actuator ON command (actuator, seq);
CREATE INDEX outcome_uncertain ON outcome (seq) WHERE status = 'uncertain';
