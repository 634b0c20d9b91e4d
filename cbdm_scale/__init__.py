"""Class-balancing diffusion models, trained on many machines.

The way of an image:

    data -> diffusion -> models -> losses -> training -> sampling -> metrics
    '------------- plain torch: no ray, no mlflow -----------------------'

Imports run one way, from the bottom to the top of tests/import_table.py.

devices      the device of a process: IEEE float32, kernels that give the same bits
torch_internals  the private parts of torch that are used, and no others
diffusion    noise: schedule, EDM, processes, the denoiser's type; random numbers of an image
data         shards, index, sample plan, loader, augmentation
models       backbones, and the classifier's ResNet
losses       an objective is a sum of terms, one file each: DDPM (Equation 1),
             CBDM (Equation 4), TCFG (Appendix C)
training     train loop, state, gradients, averages, the ranks (distributed)
sampling     samplers, guidance, grids
metrics      pure functions of features, and the networks that make features

What makes a run of it:

storage      local folders and URLs, JSON files
cli          the command line of every command: options read once, --help, completion
config       what a run is: schema, the paper's rows, preset files, what was typed
cluster      the only import of ray: workers, pools, notices of preemption
tracking     the only import of mlflow (with pretrained/mlflow_model.py, which MLflow runs):
             runs, the spool of metrics, registered models
pretrained   trained networks from anywhere, fine-tuning, export to other libraries
generation   sets of images of a trained network, made on all workers
formats      such a set as PNG, npz, shards to train on
evaluation   who evaluates when, the scores on record, the report
recognition  a classifier on real and generated images (Table 4)
balancing    a data set of real images and generated ones that passed filters
runs         a run's folder, its checkpoints, one rank of it, launching it, listing runs

The commands: train, sample, evaluate, export, classify, balance, preflight, runs. Beside the
package: data_prep writes the shards, tune searches and compares.
"""

__version__ = "0.1.0"
