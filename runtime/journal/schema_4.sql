-- Version 4: after a restart the guard looks up what each actuator was told last.

CREATE INDEX command_actuator ON command (actuator, seq);
