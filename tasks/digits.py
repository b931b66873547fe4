from tasks.image_task import ImageTask, SklearnDigits

TASK = ImageTask(
    name="digits",
    title="Handwritten digits, 8 x 8 pixels: ten classes, a small residual network from scratch",
    source=SklearnDigits(),
    n_classes=10,
    n_train=1347,
    size=8,
    channels=1,
    mean=(0.305,),
    std=(0.376,),
    augmentation="crop",
    architecture={
        "model_type": "resnet",
        "layer_type": "basic",
        "embedding_size": 16,
        "hidden_sizes": [16, 32],
        "depths": [1, 1],
        "downsample_in_first_stage": False,
    },  # fmt: skip
    stem="3x3",
    batch_size=32,
    epochs=10,
    decay_epochs=(5, 8),
    learning_rates=(0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    licence="CC BY 4.0",
    citation="Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI",
)
