"""Attacks that send training clips through a lossy format and back, aligned in time with the originals.

Each is ``attack(clips, lengths, sample_rate, strength, rng) -> clips`` as in experiments.attacks.audio; every
clip is encoded as a file of its own.
"""

from __future__ import annotations

import io

import av
import lameenc
import numpy as np
import soundfile

from experiments.attacks.audio import Clips, Ints, Wave, each, fitted, rounded
from poscuda_fast.interrupts import interrupts_held_back

# Delay in frames of LAME and of a decoder without its gap information: 576 + 529.
MP3_DELAY = 1105
AAC_DELAY = 1024  # frames: one block, which FFmpeg's encoder puts before the sound
MP3_TAIL = 2 * 1152  # zeros after a clip, which push its end out of the encoder
OPUS_LEAST, OPUS_SPAN = 6.0, 250.0  # kbit/s at libsndfile's compression levels 1 and 0: 6 and 256


def mp3(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """MP3 by LAME at a constant `strength` kbit/s."""

    def change(wave: Wave) -> Wave:
        encoder = lameenc.Encoder()
        encoder.set_bit_rate(int(strength))
        encoder.set_in_sample_rate(sample_rate)
        encoder.set_out_sample_rate(sample_rate)
        encoder.set_channels(1)
        encoder.set_quality(5)
        encoder.silence()
        padded = rounded(np.concatenate([wave, np.zeros(MP3_TAIL)]))
        encoded = bytes(encoder.encode(padded.tobytes())) + bytes(encoder.flush())
        with interrupts_held_back():
            decoded, _ = soundfile.read(io.BytesIO(encoded), dtype="int16")
        return decoded[MP3_DELAY : MP3_DELAY + len(wave)].astype(np.float64)

    return each(clips, lengths, change)


def aac(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """AAC-LC by FFmpeg's encoder at about `strength` kbit/s."""

    def change(wave: Wave) -> Wave:
        encoder = av.CodecContext.create("aac", "w")
        encoder.sample_rate, encoder.layout, encoder.format = sample_rate, "mono", "fltp"
        encoder.bit_rate = round(1000 * strength)
        encoder.open()
        size = encoder.frame_size
        padded = np.pad(wave / 32768, (0, AAC_DELAY + -(len(wave) + AAC_DELAY) % size)).astype(np.float32)
        packets = []
        for first in range(0, len(padded), size):
            block = av.AudioFrame.from_ndarray(padded[None, first : first + size], "fltp", "mono")
            block.sample_rate, block.pts = sample_rate, first
            packets += encoder.encode(block)
        decoder = av.CodecContext.create("aac", "r")
        decoder.extradata = encoder.extradata
        heard = [
            block.to_ndarray()[0]
            for packet in (*packets, *encoder.encode(None), None)
            for block in decoder.decode(packet)
        ]
        return fitted(32768 * np.concatenate(heard)[AAC_DELAY:].astype(np.float64), len(wave))

    return each(clips, lengths, change)


def opus(clips: Clips, lengths: Ints, sample_rate: int, strength: float, rng: np.random.Generator) -> Clips:
    """Opus at about `strength` kbit/s (6 to 256), for rates of 8, 12, 16, 24 and 48 kHz."""
    level = 1.0 - (strength - OPUS_LEAST) / OPUS_SPAN

    def change(wave: Wave) -> Wave:
        file = io.BytesIO()
        with interrupts_held_back():
            with soundfile.SoundFile(
                file, "w", sample_rate, channels=1, format="OGG", subtype="OPUS", compression_level=level
            ) as encoder:
                encoder.write(rounded(wave))
            file.seek(0)
            decoded, _ = soundfile.read(file, dtype="int16")
        return fitted(decoded.astype(np.float64), len(wave))

    return each(clips, lengths, change)
