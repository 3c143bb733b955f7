"""The table of a run over its steps, from logs as Trainer writes them."""

from hf_synth.training.pretraining import dynamics

TRAINING = [
    {"step": step, "epoch": step / 4, "loss": loss, "grad_norm": 2 * loss, "learning_rate": rate}
    for step, loss, rate in ((2, 3.0, 0.1), (4, 2.0, 0.2))
]
END = {"step": 4, "epoch": 1.0, "train_runtime": 9.0, "train_samples_per_second": 8.0, "train_loss": 2.5}


def look(step, name, loss):
    times = {f"eval_{name}_runtime": 1.0, f"eval_{name}_samples_per_second": 5.0}
    return {"step": step, "epoch": step / 4, f"eval_{name}_loss": loss, f"eval_{name}_loss/low": loss / 2, **times}


def test_a_row_for_each_look_with_the_rate_that_was_logged_last():
    looks = [look(3, "train", 2.5), look(3, "validation", 2.6)]
    assert dynamics([TRAINING[0], *looks, TRAINING[1], look(4, "validation", 2.2), END]) == [
        {
            "step": 3, "train_loss": 2.5, "train_loss/low": 1.25, "validation_loss": 2.6, "validation_loss/low": 1.3,
            "learning_rate": 0.1,
        },
        {"step": 4, "validation_loss": 2.2, "validation_loss/low": 1.1, "learning_rate": 0.2},
    ]  # fmt: skip


def test_what_a_run_logs_of_its_own_has_its_rows_before_the_first_rate_too():
    history = [{"step": 0, "geometry/isometry": 0.5}, look(2, "train", 3.0), *TRAINING]
    history.append({"step": 4, "curriculum/stage": 1.0})
    assert dynamics(history) == [
        {"step": 0, "geometry/isometry": 0.5},
        {"step": 2, "train_loss": 3.0, "train_loss/low": 1.5},
        {"step": 4, "curriculum/stage": 1.0, "learning_rate": 0.2},
    ]


def test_a_run_without_a_look_has_what_was_logged_in_training():
    assert dynamics([*TRAINING, END]) == [
        {"step": 2, "loss": 3.0, "grad_norm": 6.0, "learning_rate": 0.1},
        {"step": 4, "loss": 2.0, "grad_norm": 4.0, "learning_rate": 0.2},
    ]
