"""The points of the search: families of marks and signal-to-noise ratios, by sweep."""

from __future__ import annotations

from experiments.families import Family

LOW, MIDDLE, HIGH = (0.0006, 0.0075), (0.0375, 0.3), (0.325, 0.49)
WIDE = (0.06, 0.5)

SWEEPS: dict[str, list[tuple[Family, float]]] = {
    "carriers": [
        (Family(carrier, (band,), window=window), 22.0)
        for carrier, band, window in (
            ("tone", (0.0, 0.0004), "hann"),
            ("tone", LOW, "hann"),
            ("tone", (0.0075, 0.02), "hann"),
            ("tone", MIDDLE, "hann"),
            ("tone", HIGH, "hann"),
            ("noise", (0.0, 0.02), "hann"),
            ("noise", (0.0, 0.5), "hann"),
            ("noise", HIGH, "hann"),
            ("filtered", MIDDLE, "hann"),
            ("filtered", HIGH, "hann"),
        )
    ],
    "coherent": [
        (Family("loop", (WIDE,), period=16, window="flat", patch=0, patches=1), 25.0),
        (Family("loop", (WIDE,), period=16, window="flat", patch=0, patches=1), 22.0),
        (Family("comb", (WIDE,), period=16, window="flat", patch=0, patches=1, resonances=3), 25.0),
        (Family("comb", (WIDE,), period=8, window="flat", patch=0, patches=1, resonances=2), 25.0),
        (Family("loop", (WIDE,), period=8, window="flat", patch=0, patches=1), 25.0),
        (Family("loop", (WIDE,), period=16, window="flat", patch=0, patches=3), 25.0),
        (Family("loop", (WIDE,), period=16, window="flat", patch=0, patches=1), 19.0),
        (Family("loop", (WIDE,), period=16, window="flat", share=1.0, patch=0, patches=1), 25.0),
        (Family("loop", (WIDE,), period=16, window="flat", share=1.0, patch=0, patches=1), 30.0),
    ],
    "bursts": [
        *(
            (Family("loop", (WIDE,), period=16, window="flat", patch=patch, place="grid"), 25.0)
            for patch in (16, 32, 64, 128, 256)
        ),
        (Family("loop", ((0.3, 0.5),), period=16, window="flat", patch=64, place="grid"), 25.0),
        (Family("comb", (WIDE,), period=16, window="flat", patch=64, place="grid", resonances=2), 25.0),
        (Family("loop", (WIDE,), period=8, window="flat", patch=64, place="grid"), 25.0),
        (Family("tone", ((0.325, 0.49),), window="flat", patch=64, place="grid"), 25.0),
    ],
    "mixes": [
        (
            Family(
                carrier, bands, window="flat", patch=patch, place="grid", weights=weights, resonances=n, share=share
            ),
            25.0,
        )
        for carrier, bands, weights, patch, n, share in (
            ("noise+tone", (WIDE, HIGH), (1.0, 1.0), 32, 1, 0.25),
            ("noise+tone", (WIDE, HIGH), (1.0, 0.5), 32, 1, 0.25),
            ("noise", (WIDE,), (), 32, 1, 0.25),
            ("noise", ((0.2, 0.5),), (), 32, 1, 0.25),
            ("tone", (HIGH,), (), 32, 1, 0.25),
            ("tone", ((0.2, 0.49),), (), 64, 3, 0.25),
            ("tone", ((0.2, 0.49),), (), 32, 2, 0.25),
            ("noise", (WIDE,), (), 16, 1, 0.125),
            ("noise", (WIDE,), (), 32, 1, 0.125),
            ("noise", (WIDE,), (), 48, 1, 0.25),
        )
    ],
    "loops": [
        (
            Family(
                carrier,
                bands,
                window=window,
                patch=patch,
                place="grid",
                weights=weights,
                resonances=n,
                period=16,
                tilt=tilt,
            ),
            25.0,
        )
        for carrier, bands, weights, patch, n, tilt, window in (
            ("loop+tone", (WIDE, HIGH), (1.0, 1.0), 32, 1, 0.0, "flat"),
            ("loop", (WIDE,), (), 32, 1, 0.0, "none"),
            ("loop", (WIDE,), (), 32, 1, 4.0, "flat"),
            ("loop", (WIDE,), (), 32, 1, 8.0, "flat"),
            ("comb", (WIDE,), (), 32, 4, 4.0, "flat"),
            ("comb", ((0.18, 0.5),), (), 32, 3, 0.0, "flat"),
            ("loop", (WIDE,), (), 8, 1, 0.0, "none"),
            ("loop", (WIDE,), (), 16, 1, 4.0, "none"),
            ("comb", ((0.18, 0.5),), (), 16, 3, 0.0, "none"),
        )
    ],
    "four": [
        (Family(carrier, bands, window="none", patch=patch, place="grid", resonances=n, period=period), 25.0)
        for carrier, bands, patch, n, period in (
            ("loop", (WIDE,), 8, 1, 16),
            ("comb", ((0.18, 0.5),), 16, 3, 16),
            ("tone", ((0.2, 0.49),), 8, 2, 16),
            ("tone", ((0.2, 0.49),), 16, 2, 16),
            ("loop", (WIDE,), 4, 1, 16),
        )
    ],
    "taps": [
        *(
            (Family("taps", (WIDE,), window="none", patch=patch, place="grid", period=16, differences=n), snr)
            for patch, n, snr in (
                (16, 0, 25.0),
                (16, 1, 25.0),
                (16, 2, 25.0),
                (8, 1, 25.0),
                (16, 1, 20.0),
                (16, 1, 15.0),
            )
        ),
        (Family("comb", ((0.18, 0.5),), window="none", patch=16, place="grid", resonances=3, period=16), 20.0),
        (Family("comb", ((0.18, 0.5),), window="none", patch=16, place="grid", resonances=3, period=16), 15.0),
    ],
    "steps": [
        (Family("taps", (WIDE,), window="none", patch=patch, place="grid", period=16, differences=1, share=share), 25.0)
        for patch, share in ((16, 0.25), (32, 0.25), (12, 0.25), (24, 0.25), (20, 0.25), (16, 0.125))
    ],
}
