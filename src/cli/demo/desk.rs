//! What a supervisor's desktop asks of the proxy: over HTTP, as anybody's would.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use serde_json::{Value, json};

use crate::cli::client::{Client, Failure};
use crate::clock;

/// A desktop that knows the address of the proxy's API.
#[derive(Debug, Clone)]
pub struct Desk {
    api: Client,
}

/// Why the proxy did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It refused, or did not answer.
    #[error(transparent)]
    Api(#[from] Failure),
    /// No live call has the supervisor.
    #[error("the supervisor is in no call")]
    NoCall,
}

impl Desk {
    /// One that asks the API there.
    pub fn new(api: SocketAddr) -> Self {
        Self { api: Client { api: format!("http://{api}"), token_file: None, json: false } }
    }

    /// Wants the supervisor to be called into the agent's next call, to coach. Blocks.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn monitor(&self, supervisor: &str, agent: &str) -> Result<(), Error> {
        let body = json!({"OtherDN": agent, "Extensions": {"MonitorMode": "coach"}});
        self.api.post(&format!("/v1/dns/{supervisor}/monitor-next-call"), &body)?;
        Ok(())
    }

    /// Has everybody hear the supervisor. Blocks; the time from asking to the answer.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn connect(&self, supervisor: &str) -> Result<Range<Instant>, Error> {
        let calls = self.api.get("/v1/calls")?;
        let has = |call: &&Value| list(&call["parties"]).any(|party| party["dn"] == supervisor);
        let call = list(&calls["calls"]).find(has).and_then(|call| call["connId"].as_str()).ok_or(Error::NoCall)?;
        let asked = clock::now();
        self.api.post(&format!("/v1/calls/{call}/set-mute-off"), &json!({"ThisDN": supervisor}))?;
        Ok(asked..clock::now())
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
