from momentum_bench.tasks.types import RESNET_50, HubSource, ImageTask

TASK = ImageTask(
    name="imagenet",
    title="ImageNet-1k: a thousand classes of photographs, ResNet-50 from scratch",
    source=HubSource(id="ILSVRC/imagenet-1k", revision="49e2ee26f3810fb5a7536bbf732a7b07389a47b5"),
    test="validation",
    n_classes=1000,
    n_train=1_281_167,
    dev_fraction=0.01,
    augmentation="resized_crop_flip",
    architecture=RESNET_50,
    stem="7x7",
    batch_size=256,
    epochs=90,
    warmup_epochs=5,
    decay_epochs=(30, 60, 80),
    weight_decay=1e-4,
    licence="ImageNet terms of access (gated on the hub)",
    citation="Russakovsky et al. 2015, ImageNet Large Scale Visual Recognition Challenge",
)
