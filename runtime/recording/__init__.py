"""A spoken conversation kept as files, and held again from them: `chat --record DIR`, `sottovoce replay DIR`.

`Recorder` (recorder.py) writes while the conversation goes on; what it wrote can be read however the program ended.
`Recording` (reading.py) believes nothing that it reads. Turn taking is replayed by itself (turn_taking.py), then the
conversation with a bundle (conversation_replay.py), and both are compared with what was recorded (comparing.py).
"""
