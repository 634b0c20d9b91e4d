"""Table 2 on the long-tailed digits: CBDM fine-tuning of a trained DDPM, by label set.

    python -m benchmarks.finetune_study --storage FOLDER [--images 72000] [--seeds 0 1 2]

For each seed a DDPM (72,000 images), and from its averaged weights four runs of 24,000 images:
CBDM with y' drawn as train, sqrt and bal (label_power 1, 1/2, 0), and DDPM continued, as the
control. The half-life of their average is shorter in proportion, or half of it would be the
pretrained network. Prints a Markdown table: mean and spread (half the range) over the seeds.
"""

from benchmarks.study import Study, arguments

HALFLIVES = 4.3  # of the average in a run: as many as in the preset's 72,000 images
PRETRAINED = "DDPM, pretrained"
ROWS = {
    PRETRAINED: "--preset ddpm",
    "DDPM continued": "--preset ddpm",
    "CBDM, train": "--preset cbdm --loss.label-power 1",
    "CBDM, sqrt": "--preset cbdm --loss.label-power 0.5",
    "CBDM, bal": "--preset cbdm --loss.label-power 0",
}


def main() -> None:
    parser = arguments(__doc__, images=72_000)
    parser.add_argument("--more-images", type=int, default=24_000)
    args = parser.parse_args()

    def images(row: str) -> int:
        return int(args.images if row == PRETRAINED else args.more_images)

    def start(row: str, seed: int) -> str:
        if row == PRETRAINED:
            return ""
        halflife = round(args.more_images / HALFLIVES)
        run = study.run_all(PRETRAINED, seed).url
        return f"--init-from {run} --train.ema-halflife {halflife}"

    study = Study(
        name="finetune study",
        args=args,
        rows=ROWS,
        omegas=(0.0, 1.0, 2.0),
        images=images,
        more=start,
    )
    study.run_all()


if __name__ == "__main__":
    main()
