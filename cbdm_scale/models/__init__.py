"""The networks: every backbone is a ``denoiser.Net``, made from its `NetworkSpec` by ``build``.

Labels are 0..K-1, and label K means "none": that is where a condition was dropped.

    options       what a backbone of each kind can be
    spec          what a network is: a backbone's options, and the images that it is made for
    embeddings    step, label, augmentation and guidance strength as one vector
    backbone      what all networks share: conditions in, features of the middle out
    norm          group normalisation with SiLU; norm_kernel is its kernel for GPUs
    unet          the U-Net of DDPM, the paper's network
    songunet      DDPM++ and NCSN++, in the form of EDM
    dit, vit      transformers over patches
    build         from spec to network
    cast          weights in bf16, once, for networks that learn no more
    resnet        the classifier of Table 4
"""
