"""DDPM against CBDM on the long-tailed digits: seeds, guidance scanned, spread stated.

    python -m benchmarks.digits_study --storage FOLDER [--images 96000] [--seeds 0 1 2]

Prints a Markdown table: mean and spread (half the range) over the seeds.
"""

from benchmarks.study import Study, arguments

COST = 1.85  # of a CBDM step in DDPM steps
LONGER = "DDPM, CBDM's compute"
ROWS = {
    "DDPM": "--preset ddpm",
    LONGER: "--preset ddpm",
    "CBDM": "--preset cbdm",
    "CBDM, reg_share 0.25": "--preset cbdm --loss.reg-share 0.25",
}


def main() -> None:
    args = arguments(__doc__, images=96_000).parse_args()

    def images(row: str) -> int:
        return round(args.images * COST / 48) * 48 if row == LONGER else args.images

    omegas = 0.0, 1.0, 2.0, 4.0
    Study(name="digits study", args=args, rows=ROWS, omegas=omegas, images=images).run_all()


if __name__ == "__main__":
    main()
