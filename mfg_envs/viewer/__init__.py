"""The picture: environments drawn, an interactive window, films and pictures. Needs the extra `render`.

| file | what it does | pygame |
|---|---|---|
| `players.py` | who moves: random, nothing, exact, a file | no |
| `session.py` | the play: agents, crowd, returns, the agent that is pulled | no |
| `stage.py`, `scene.py`, `palette.py`, `layout.py` | what is to be drawn, in which colours, and where | no |
| `painter.py`, `sprites.py` | a scene to a picture, a pure function of it | surfaces and fonts |
| `environment.py` | `render()` of the environments | and a window for "human" |
| `film.py` | films and strips of snapshots | surfaces and fonts |
| `window.py`, `cli.py` | the interactive window, the command line | yes |
"""
