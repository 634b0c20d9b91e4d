"""Samplers: functions of (net, noise, y). Guidance: a network in, a network out.

options     sampler, steps, guidance
steps       which steps of DDPM's process are taken, and the image seen behind the noise
ddpm        ancestral sampling of DDPM, the paper's
ddim        DDIM, a few deterministic steps
dpm         DPM-Solver++(2M)
heun        EDM's samplers
guidance    classifier-free guidance, TCFG's in one call, autoguidance
graphed     a network whose calls are replays of CUDA graphs
generate    images by their numbers in a set, whoever makes them
grid        pictures of samples
"""
