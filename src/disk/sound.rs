//! A sound that we play: hold audio, ringback. Read once at start.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Disk, wav};
use crate::audio::resample;

/// The rate that sounds are played from.
const SAMPLE_RATE: u32 = 8_000;
/// The longest one: ten minutes of 48,000 Hz take 55 MiB while they are read.
const MAX_SECONDS: u64 = 600;

/// Why a file is not a sound of ours.
#[derive(Debug, thiserror::Error)]
pub enum SoundError {
    /// It cannot be read, or is no WAV file of 16-bit PCM.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// More than two channels.
    #[error("{0} channels; mono and stereo can be played")]
    Channels(u16),
    /// A rate that is not made to 8,000 Hz.
    #[error("{0} Hz; 8000 to 48000 Hz can be played")]
    Rate(u32),
    /// No frames.
    #[error("there is nothing in it")]
    Empty,
    /// Too long.
    #[error("{0} s long; at most {MAX_SECONDS} s can be played")]
    Long(u64),
}

/// Reads a WAV file of 16-bit PCM, mono or stereo, 8,000 to 48,000 Hz, at most ten minutes: as mono samples at 8,000 Hz.
/// The channels of a stereo file are played at half their level each.
pub fn load(disk: &dyn Disk, path: &Path) -> Result<Arc<[i16]>, SoundError> {
    let info = wav::inspect(disk, path)?;
    let (rate, channels) = (info.spec.sample_rate, info.spec.channels);
    if !(1..=2).contains(&channels) {
        return Err(SoundError::Channels(channels));
    }
    if !(SAMPLE_RATE..=48_000).contains(&rate) {
        return Err(SoundError::Rate(rate));
    }
    match info.frames.div_ceil(u64::from(rate)) {
        0 => return Err(SoundError::Empty),
        seconds if seconds > MAX_SECONDS => return Err(SoundError::Long(seconds)),
        _ => {}
    }
    let (_, mut samples) = wav::read(disk, path)?;
    if channels == 2 {
        samples = samples.chunks_exact(2).map(|pair| ((i32::from(pair[0]) + i32::from(pair[1])) / 2) as i16).collect();
    }
    Ok(if rate == SAMPLE_RATE { samples.into() } else { resample::whole(&samples, rate, SAMPLE_RATE).into() })
}

#[cfg(test)]
mod tests {
    use super::super::RealDisk;
    use super::super::wav::{Spec, Writer};
    use super::*;
    use std::f64::consts::TAU;

    fn write(path: &Path, sample_rate: u32, channels: u16, frames: usize) {
        let mut writer = Writer::create(&RealDisk, path, Spec { sample_rate, channels }).unwrap();
        let value = |n: usize| 12_000.0 * (TAU * 1_000.0 * n as f64 / f64::from(sample_rate)).sin();
        let frame = |n: usize| [value(n) as i16, if channels == 2 { 0 } else { value(n) as i16 }];
        let samples: Vec<i16> = (0..frames).flat_map(|n| frame(n)[..usize::from(channels.min(2))].to_vec()).collect();
        writer.append(&samples).unwrap();
        writer.commit().unwrap();
    }

    #[test]
    fn a_file_of_any_usual_rate_is_played_at_its_pitch_level_and_length() {
        let folder = tempfile::tempdir().unwrap();
        for rate in [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000] {
            for channels in [1, 2] {
                let path = folder.path().join(format!("{rate}-{channels}.wav"));
                write(&path, rate, channels, rate as usize);
                let samples = load(&RealDisk, &path).unwrap();
                assert_eq!(samples.len(), 8_000);
                let peak = if channels == 1 { 12_000.0 } else { 6_000.0 };
                let expected = |n: usize| peak * (TAU * 1_000.0 * n as f64 / 8_000.0).sin();
                let worst = (100..7_900).map(|n| (f64::from(samples[n]) - expected(n)).abs()).fold(0.0, f64::max);
                assert!(worst < 40.0, "{rate} Hz, {channels} channels: {worst}");
            }
        }
    }

    #[test]
    fn what_cannot_be_played_is_refused_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sound.wav");
        let refused = || load(&RealDisk, &path).unwrap_err().to_string();
        assert!(refused().contains("No such file"), "{}", refused());
        std::fs::write(&path, b"ID3, no RIFF at all, but long enough for a header of WAV").unwrap();
        assert!(!refused().is_empty());
        for (rate, frames, reason) in [
            (8_000, 0, "there is nothing in it"),
            (4_000, 10, "4000 Hz; 8000 to 48000 Hz can be played"),
            (96_000, 10, "96000 Hz; 8000 to 48000 Hz can be played"),
            (8_000, 8_000 * 601, "601 s long; at most 600 s can be played"),
        ] {
            std::fs::remove_file(&path).unwrap();
            write(&path, rate, 1, frames);
            assert_eq!(refused(), reason);
        }
    }
}
