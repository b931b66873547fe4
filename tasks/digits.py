from momentum_bench.tasks.types import RESNET_6, ImageTask, SklearnDigits

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
    architecture=RESNET_6,
    batch_size=32,
    epochs=10,
    decay_epochs=(5, 8),
    licence="CC BY 4.0",
    citation="Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI",
)
