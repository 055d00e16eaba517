"""Turn taking as a pure state machine: events and their times in, actions out; no threads, devices or model inside.

`Duplex` (machine.py) decides when the user's turn begins and ends, when a reply is to stop, and what is kept of both.
`VoiceActivity` (voice_activity.py) makes its events from a microphone's samples. The same events give the same
actions, so that a recorded conversation can be held again: both are one JSON object each (serialization.py).
"""
