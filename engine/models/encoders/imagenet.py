"""How the pictures of ImageNet are normalised, which the encoders were trained on."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FILL = (124, 116, 104)  # the mean colour in grey levels: what lies outside an image
