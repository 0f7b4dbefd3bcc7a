//! The threads of the media path and the rings between them.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::StartError;
use crate::bridge::command::Notice;
use crate::call::Input;
use crate::config::Config;
use crate::id::{MixerId, RecorderId, WorkerId};
use crate::net::kernel::Kernel;
use crate::runtime::metrics::Metrics;
use crate::runtime::recorder::{self, Keeper, RecorderHandle};
use crate::runtime::signaling::Inbox;
use crate::runtime::{media, mixer, ring};

/// Seconds of every call's packets that the tap rings hold: they bridge a recorder thread that does not run. A stalled
/// disk is bridged behind them, by the writers' queues.
const RING_SECONDS: usize = 2;

/// Bytes of one call's packets in a second: two legs, 50 packets each, 160 bytes of payload and a header.
const CALL_BYTES_PER_SECOND: usize = 2 * 50 * (160 + crate::record::tap::TapHeader::LEN);

/// Media threads that one mixer thread serves: making a packet costs a small part of sending it.
const WORKERS_PER_MIXER: usize = 4;

/// Most bytes of a ring between a media and a mixer thread; what waits there is less than a tick of packets.
const MIXER_RING: usize = 4 << 20;

/// Members of all rooms of one mixer; one more is refused.
const MEMBERS_PER_MIXER: usize = 8_192;

/// One tap ring from every media thread to every recorder: producers by worker, consumers by recorder.
pub(super) fn tap_rings(config: &Config) -> (Vec<Vec<ring::Producer>>, Vec<Vec<ring::Consumer>>) {
    let count = config.threads.count();
    let all = (config.sip.max_calls * CALL_BYTES_PER_SECOND * RING_SECONDS).min(config.storage.buffer as usize / 4);
    // A call's legs share one worker and one recorder, and calls are spread evenly: twice the even share each.
    let bytes = 2 * all / (count * count);
    let mut rings: Vec<Vec<ring::Consumer>> = (0..count).map(|_| Vec::with_capacity(count)).collect();
    let taps = (0..count)
        .map(|_| {
            rings
                .iter_mut()
                .map(|recorder| {
                    let (producer, consumer) = ring::tap(bytes);
                    recorder.push(consumer);
                    producer
                })
                .collect()
        })
        .collect();
    (taps, rings)
}

pub(super) fn start_recorders(
    config: &Config,
    epoch: Instant,
    rings: Vec<Vec<ring::Consumer>>,
    keeper: &Keeper,
    inbox: &Inbox,
) -> Result<Vec<Arc<RecorderHandle>>, StartError> {
    let count = rings.len() as u64;
    let inbox = inbox.clone();
    let notices: recorder::Notices = Arc::new(move |id, notice| {
        inbox.send(Input::Record(id, notice));
    });
    rings
        .into_iter()
        .enumerate()
        .map(|(n, rings)| {
            let options = recorder::Options {
                id: RecorderId(n as u8),
                epoch,
                buffer: config.storage.buffer / 4 * 3 / count,
                max_file_size: config.storage.max_file_size,
            };
            recorder::spawn(options, keeper, rings, notices.clone()).map(Arc::new).map_err(StartError::Recorder)
        })
        .collect()
}

/// The media threads, and the mixers that they share.
pub(super) fn start_media(
    config: &Config,
    epoch: Instant,
    taps: Vec<Vec<ring::Producer>>,
    inbox: &Inbox,
    metrics: &Arc<Metrics>,
) -> Result<(Vec<media::Handle>, Vec<mixer::Handle>), StartError> {
    let mut to_mixers: Vec<Vec<media::MixerEnds>> = taps.iter().map(|_| vec![]).collect();
    let mut to_media: Vec<Vec<mixer::MediaEnds>> = vec![];
    for _ in 0..taps.len().div_ceil(WORKERS_PER_MIXER) {
        let (media, mixer): (Vec<_>, Vec<_>) = taps.iter().map(|_| mixer::rings(MIXER_RING)).unzip();
        to_mixers.iter_mut().zip(media).for_each(|(worker, ends)| worker.push(ends));
        to_media.push(mixer);
    }
    let ports = media::split_ports(config.threads.ports.clone(), taps.len());
    let interfaces = &config.threads.kernel_forwarding;
    let mut workers = Vec::with_capacity(taps.len());
    for (n, ((taps, mixers), ports)) in taps.into_iter().zip(to_mixers).zip(ports).enumerate() {
        let options = media::Options {
            worker: WorkerId(n as u8),
            ports,
            cooldown: config.threads.cooldown,
            batch_interval: config.threads.batch_interval,
            priority: config.threads.priority,
            epoch,
            seed: rand::random(),
        };
        let kernel = match interfaces.is_empty() {
            true => None,
            false => Some(Kernel::attach(interfaces)?),
        };
        workers.push(media::Worker { options, taps, mixers, kernel });
    }
    let (told, metrics) = (inbox.clone(), metrics.clone());
    let media = media::spawn(workers, move |worker, notice| {
        if let Notice::Removed { stats, .. } = &notice {
            metrics.leg_ended(stats);
        }
        told.send(Input::Media(worker, notice));
    })?;
    let mixers = start_mixers(config, epoch, to_media, &media, inbox).map_err(StartError::Mixer)?;
    Ok((media, mixers))
}

fn start_mixers(
    config: &Config,
    epoch: Instant,
    rings: Vec<Vec<mixer::MediaEnds>>,
    media: &[media::Handle],
    inbox: &Inbox,
) -> io::Result<Vec<mixer::Handle>> {
    let start = |(n, ends): (usize, Vec<mixer::MediaEnds>)| {
        let options = mixer::Options {
            mixer: MixerId(n as u8),
            priority: config.threads.priority,
            epoch,
            max_members: MEMBERS_PER_MIXER,
        };
        let inbox = inbox.clone();
        let workers = media.iter().map(media::Handle::sender).collect();
        mixer::spawn(options, ends, workers, move |mixer, notice| {
            inbox.send(Input::Mix(mixer, notice));
        })
    };
    rings.into_iter().enumerate().map(start).collect()
}
