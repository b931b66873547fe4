from momentum_bench.tasks.types import RESNET_32, HubSource, ImageTask

TASK = ImageTask(
    name="cifar10",
    title="CIFAR-10: ten classes of 32 x 32 photographs, ResNet-32 from scratch",
    source=HubSource(id="uoft-cs/cifar10", revision="0b2714987fa478483af9968de7c934580d0bb9a2"),
    image="img",
    n_classes=10,
    n_train=50_000,
    size=32,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    augmentation="crop_flip",
    architecture=RESNET_32,
    batch_size=512,
    epochs=160,
    decay_epochs=(80, 120),
    weight_decay=5e-4,  # as in the public code of SVAG (Li et al. 2021); the value of the paper is not known
    licence="unknown",
    citation="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
)
