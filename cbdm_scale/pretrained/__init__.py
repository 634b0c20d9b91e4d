"""Trained networks from anywhere, fine-tuning, export to other libraries.

In: options.py says which network, loading.py finds it by its name, training/averaged_weights.py
which weights, third_party.py reads what no run of ours trained (paper_checkpoint.py the paper's
own code, diffusers_folder.py a folder of diffusers); network.py is what all of them give.
guide.py finds the worse network of autoguidance.

On: finetune.py and transfer.py start a run from one, serve.py and mlflow_model.py answer calls
of a registered model.

Out: export_diffusers.py and export_program.py; diffusers_unet.py and diffusers_dit.py are the
tables of names for both directions.
"""
