//! Facts as log lines: a life begins or ends at `info`, what somebody should look at is `warn`. No number, name or
//! digit of a caller stands here.

use tracing::{info, warn};

use crate::call::fact::{Fact, What};

/// Writes the line of one fact.
pub fn fact(fact: &Fact) {
    let call = fact.conn_id.map(|id| tracing::info_span!("call", conn_id = %id));
    let _entered = call.as_ref().map(tracing::Span::enter);
    match &fact.what {
        What::CallStarted { call_uuid, leg, .. } => info!(%call_uuid, %leg, "call started"),
        What::NotMade { cause, .. } => info!(cause = cause.label(), "call not made"),
        What::Refused { code, reason } => info!(code, reason, "call refused"),
        What::Ringing { leg, early_media, .. } => tracing::debug!(%leg, early_media, "ringing"),
        What::Answered { leg, .. } => info!(%leg, "answered"),
        What::Held { leg } => info!(%leg, "held"),
        What::Retrieved { leg } => info!(%leg, "retrieved"),
        What::TransferStarted { by, how, .. } => info!(%by, how = how.label(), "transfer started"),
        What::Transferred { by, stays, target, how, .. } => {
            info!(%by, %stays, %target, how = how.label(), "transferred");
        }
        What::TransferFailed { by, cause, .. } => info!(%by, cause = cause.label(), "transfer failed"),
        What::PartyInvited { by, .. } => info!(%by, "party invited"),
        What::PartyAdded { leg, by, .. } => info!(%leg, %by, "party added"),
        What::RoomEntered { call_uuid, leg, opened, .. } => info!(%call_uuid, %leg, opened, "room entered"),
        What::PartyNotAdded { by, cause, .. } => info!(%by, cause = cause.label(), "party not added"),
        What::PartyDeleted { leg, by, left } => info!(%leg, %by, left, "party deleted"),
        What::MuteChanged { leg, muted } => info!(%leg, muted, "mute changed"),
        What::ListenChanged { leg, deaf } => info!(%leg, deaf, "listening changed"),
        What::Monitoring { on, .. } => info!(on, "monitoring"),
        What::ObserverJoined { leg, agent, mode, .. } => info!(%leg, %agent, mode = mode.as_str(), "supervisor joined"),
        What::ObserverLeft { leg } => info!(%leg, "supervisor left"),
        What::MonitorMode { leg, mode, .. } => info!(%leg, mode = mode.as_str(), "monitor mode"),
        What::PartyLeft { leg } => info!(%leg, "party left"),
        What::Redirected { .. } => info!("redirected"),
        What::Replaced { leg, by, .. } => info!(%leg, %by, "replaced"),
        What::Preference { leg, wish, obeyed } => info!(%leg, wish, obeyed, "recording preference"),
        What::Released { cause, by, answered } => {
            let by = by.map(|leg| leg.0);
            info!(cause = cause.label(), by, answered, "call ended");
        }
        What::RecordingStarted { id, owner, side, trigger, .. } => {
            info!(recording = %id, %owner, ?side, trigger, "recording started");
        }
        What::RecordingBegun { id } => tracing::debug!(recording = %id, "recording has its files"),
        What::RecordingPaused { id } => info!(recording = %id, "recording paused"),
        What::RecordingResumed { id } => info!(recording = %id, "recording resumed"),
        What::OwnerChanged { id, owner } => info!(recording = %id, %owner, "recording has a new owner"),
        What::RecordingStopped { id, cause } => info!(recording = %id, ?cause, "recording stopped"),
        What::RecordingPublished { id } => info!(recording = %id, "recording published"),
        What::RecordingFailed { id, cause, required } => {
            let id = id.map(|id| id.to_string());
            warn!(recording = id, cause, required, "not recorded");
        }
        What::Warning { text } => warn!("{text}"),
    }
}
