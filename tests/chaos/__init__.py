"""Mini-Jepsen: the real daemon among producers, actuators and a seeded nemesis; a checker reads what all of them wrote.

python -m tests.chaos --events 4000 --agent-kills 7 --broker-kills 7 --seed 1
"""
