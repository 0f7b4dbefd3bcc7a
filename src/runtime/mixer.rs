//! The mixer threads: conferences on a 20 ms tick of their own.

use super::media::MixerEnds;
use super::ring;

pub mod wire;

/// A mixer thread's ends of the two rings between it and a media thread.
pub struct MediaEnds {
    /// Packets of conference legs.
    pub from: ring::Consumer,
    /// What is made for them.
    pub to: ring::Producer,
}

/// The two rings between a media thread and a mixer thread, of about `bytes` bytes each.
pub fn rings(bytes: usize) -> (MixerEnds, MediaEnds) {
    let (to_mixer, from_media) = ring::tap(bytes);
    let (to_media, from_mixer) = ring::tap(bytes);
    (MixerEnds { to: to_mixer, from: from_mixer }, MediaEnds { from: from_media, to: to_media })
}
