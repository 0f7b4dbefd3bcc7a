//! What all WebSockets have: pings, patience, the farewell.
//!
//! The server pings every 15 s; a client that leaves two pings unanswered is disconnected, and so is one that takes
//! nothing for 30 s.

use std::future::Future;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Something is sent at least so often, that both sides notice when the other is gone.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Pings in a row that a client may leave unanswered.
const PINGS: u32 = 2;

/// A frame that is not taken within this time ends the WebSocket.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a client's message.
pub(super) const MAX_MESSAGE: usize = 4_096;

/// Why we end a WebSocket.
pub(super) struct Farewell {
    pub code: u16,
    pub reason: &'static str,
}

impl Farewell {
    pub(super) const STOPPING: Self = Self { code: close_code::AWAY, reason: "the server is stopping" };
}

/// What a client sends.
pub(super) enum Heard {
    Text(String),
    Binary,
}

/// What one WebSocket is for.
pub(super) trait Conversation: Send + 'static {
    /// The next text for the client. A future that is dropped takes nothing away.
    fn next(&mut self) -> impl Future<Output = Result<String, Farewell>> + Send;
    /// The client has said something.
    fn hear(&mut self, heard: Heard) -> Result<(), Farewell>;
}

/// Opens a WebSocket for a conversation, which is dropped when it ends, or does not come about.
pub(super) fn open(upgrade: WebSocketUpgrade, conversation: impl Conversation) -> Response {
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE);
    upgrade.on_upgrade(|socket| talk(socket, conversation))
}

async fn talk(mut socket: WebSocket, mut conversation: impl Conversation) {
    if let Some(Farewell { code, reason }) = run(&mut socket, &mut conversation).await {
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        // Whoever has gone meanwhile needs no farewell.
        let _ = timeout(SEND_TIMEOUT, socket.send(close)).await;
    }
}

/// `None`: the client has gone, or takes nothing.
async fn run(socket: &mut WebSocket, conversation: &mut impl Conversation) -> Option<Farewell> {
    let mut ping = interval(KEEP_ALIVE);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ping.tick().await;
    let mut unanswered = 0;
    loop {
        let message = tokio::select! {
            next = conversation.next() => match next {
                Ok(text) => Message::text(text),
                Err(farewell) => return Some(farewell),
            },
            heard = socket.recv() => {
                let heard = match heard {
                    Some(Ok(Message::Text(text))) => Heard::Text(text.as_str().to_owned()),
                    Some(Ok(Message::Binary(_))) => Heard::Binary,
                    Some(Ok(Message::Pong(_))) => {
                        unanswered = 0;
                        continue;
                    }
                    // The answer to a ping is sent by the socket itself.
                    Some(Ok(Message::Ping(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                };
                match conversation.hear(heard) {
                    Ok(()) => continue,
                    Err(farewell) => return Some(farewell),
                }
            }
            _ = ping.tick() => {
                if unanswered == PINGS {
                    return None;
                }
                unanswered += 1;
                Message::Ping(Default::default())
            }
        };
        match timeout(SEND_TIMEOUT, socket.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return None,
        }
    }
}
