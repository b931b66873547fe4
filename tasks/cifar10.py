from tasks import HubSource
from tasks.image_task import ImageTask

TASK = ImageTask(
    name="cifar10",
    title="CIFAR-10: ten classes of 32 x 32 photographs, ResNet-32 from scratch",
    source=HubSource(id="uoft-cs/cifar10"),
    image="img",
    n_classes=10,
    n_train=50_000,
    size=32,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    augmentation="crop_flip",
    architecture={
        "model_type": "resnet",
        "layer_type": "basic",
        "embedding_size": 16,
        "hidden_sizes": [16, 32, 64],
        "depths": [5, 5, 5],
        "downsample_in_first_stage": False,
    },  # fmt: skip
    stem="3x3",
    batch_size=512,
    epochs=160,
    decay_epochs=(80, 120),
    weight_decay=5e-4,  # as in the public code of SVAG (Li et al. 2021); the paper's own is not known
    learning_rates=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
    licence="unknown",
    citation="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
)
