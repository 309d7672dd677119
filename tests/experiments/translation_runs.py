"""A translation model trained in a moment, for what commands and callbacks do with it."""

from pathlib import Path

import pytest
import yaml

from experiments.cli import run

CONFIG = {
    "seed_everything": 1,
    "data": {
        "class_path": "datamodules.TranslationData",
        "init_args": {
            "source": {"class_path": "datamodules.number_pairs.NumberPairs", "init_args": {"target": "es", "limit": 300}},
            "batch_size": 16,
        },
    },
    "model": {
        "class_path": "mt.Seq2Seq",
        "init_args": {
            "encoder": {
                "class_path": "lm.RecurrentNetwork",
                "init_args": {"embedding_size": 32, "layer_sizes": [32], "cell": "lm.layers.GRU", "bidirectional": True},
            },
            "decoder": {
                "class_path": "mt.AttentionDecoder",
                "init_args": {
                    "network": {
                        "class_path": "lm.RecurrentNetwork",
                        "init_args": {"embedding_size": 32, "layer_sizes": [32], "cell": "lm.layers.GRU"},
                    }
                },
            },
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
        },
    },
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": 25,
        "check_val_every_n_epoch": 5,
        "gradient_clip_val": 1.0,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "callbacks": [{"class_path": "callbacks.SampleTranslations", "init_args": {"count": 2}}],
    },
}


@pytest.fixture(scope="session")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; `experiment.yaml` lies beside it."""
    folder = tmp_path_factory.mktemp("translator")
    config = folder / "experiment.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    words = ["fit", "--config", str(config), "--run_folder", str(folder / "run"), "--data.cache", str(folder / "cache")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["run", *words])
        assert run() == 0
    return folder / "run"
