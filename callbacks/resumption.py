"""Settings of the optimizer that change from one part of a run to the next."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from lm.base import SequenceModule


class ResumedOptimizer(Callback):
    """Lets a resumed run use the optimizer's settings it was given, such as a smaller learning rate.

    A checkpoint holds the settings beside the optimizer's state, and Lightning restores both. Where a schedule sets the
    learning rate, that goes on as saved.
    """

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Change what will be restored.

        Raises:
            ValueError: if the state is that of another optimizer.
        """
        if not isinstance(pl_module, SequenceModule):
            return
        saved = checkpoint.get("module", {}).get("init_args", {}).get("optimizer")
        given = pl_module.arguments.get("optimizer")
        if saved == given or not saved or not given:
            return
        if saved["class_path"] != given["class_path"]:
            raise ValueError(
                f"optimizer: the checkpoint holds the state of {saved['class_path']}, which does not fit {given['class_path']};"
                " resume with the same class"
            )
        for state in checkpoint["optimizer_states"]:
            for group in state["param_groups"]:
                group.update({name: value for name, value in given["init_args"].items() if name in group})
                if "lr" in given["init_args"]:
                    group["lr"] *= group.get("lr_scale", 1.0)  # that of its layer group
