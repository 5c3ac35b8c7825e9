# The cell that the checks add to each chapter: it looks at all widgets, and moves every control of a picture.
import gc

import ipywidgets

from fmcore.course import widgets

problems = []
models = [model["state"] for model in ipywidgets.Widget.get_manager_state()["state"].values()]
for output in (output for model in models for output in model.get("outputs", ())):
    if output["output_type"] == "error":
        problems.append(f"a widget shows {output['ename']}: {output['evalue']}")
    elif output.get("name") == "stderr":
        problems.append(f"a widget shows on stderr: {output['text']}")
for explorer in [thing for thing in gc.get_objects() if type(thing) is widgets.Explorer]:
    for name, control in explorer.controls.items():
        if hasattr(control, "options"):
            what, ends = "index", (0, len(control.options) - 1)
        else:
            what, ends = "value", (getattr(control, "min", False), getattr(control, "max", True))
        pictures = [explorer.picture]
        for place in (*ends, getattr(control, what)):
            setattr(control, what, place)
            pictures.append(explorer.picture)
            if explorer.error:
                problems.append(f"{explorer!r} shows {explorer.error!r}")
        if len(set(pictures)) == 1:
            problems.append(f"{name} moves, the picture does not")
        if pictures[0] != pictures[-1]:
            problems.append(f"{name} comes back to its place, the picture does not")
print("\n".join(problems) or ("The widgets show what they should." if models else "There is no widget."))
