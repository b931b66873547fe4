"""Short names of optimizers."""

from __future__ import annotations

from momentum_bench.harness.records.labels import arm_key, arm_labels, setting_words


def test_hyperparameters_are_named_where_an_optimizer_occurs_with_several():
    arms = [("sgd", {}), ("sgdm", {"momentum": 0.5}), ("sgdm", {"momentum": 0.9}), ("adamw", {"beta1": 0.9})]
    labels = arm_labels([*arms, ("sgd", {})])
    assert [labels[arm_key(arm)] for arm in arms] == [
        "sgd",
        "sgdm momentum=0.5",
        "sgdm momentum=0.9",
        "adamw",
    ]


def test_only_what_differs_is_named():
    adam = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
    arms = [("adamw", adam), ("adamw", adam | {"beta1": 0.0}), ("adamw", adam | {"beta1": 0.5, "eps": 1e-6})]
    labels = arm_labels(arms)
    assert [labels[arm_key(arm)] for arm in arms] == [
        "adamw beta1=0.9 eps=1e-08",
        "adamw beta1=0 eps=1e-08",
        "adamw beta1=0.5 eps=1e-06",
    ]
    arms = [("qhm", {"momentum": 0.9}), ("qhm", {"momentum": 0.9, "nu": 0.7})]
    labels = arm_labels(arms)
    assert [labels[arm_key(arm)] for arm in arms] == ["qhm", "qhm nu=0.7"]


def test_settings_are_written_as_they_are_typed():
    settings = {"betas": (0.9, 0.95), "amsgrad": True, "fused": None, "eps": 1e-8, "mode": "max"}
    words = ["amsgrad=true", "betas=0.9/0.95", "eps=1e-08", "fused=none", "mode=max"]
    assert setting_words(settings) == words
