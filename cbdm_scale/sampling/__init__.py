"""Samplers: functions of (net, noise, y). Guidance: a network in, a network out."""
