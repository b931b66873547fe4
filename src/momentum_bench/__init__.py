"""Does momentum help when a pre-trained language model is fine-tuned on few examples?"""
