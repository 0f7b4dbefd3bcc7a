//! What a phone is told to do: which line it is for, and whether that line's state allows it.

use super::*;

impl Phone {
    pub(super) fn perform(&mut self, action: Action, now: Instant) {
        match action {
            Action::On(line, action) if line < self.lines.len() => self.perform_on(Some(line), *action, now),
            Action::On(line, action) => self.require(line, false, &format!("{action:?} on line {line}"), now),
            action => self.perform_on(None, action, now),
        }
    }

    /// `named`: the line, where the action names one.
    fn perform_on(&mut self, named: Option<usize>, action: Action, now: Instant) {
        let line = named.unwrap_or_else(|| self.line_for(&action));
        match action {
            Action::On(..) => self.perform(action, now),
            Action::Speak(_) | Action::Dtx(_) | Action::Faults(_) | Action::Skew(_) | Action::Stall(_) => {
                let lines = named.map_or(0..self.lines.len(), |line| line..line + 1);
                for line in &mut self.lines[lines] {
                    line.sender.change(&action, now);
                }
            }
            Action::NewSource => self.lines[line].sender.new_source(),
            Action::JumpTimestamp(by) => self.lines[line].sender.jump_timestamp(by),
            Action::Vanish => self.vanish(),
            Action::Press(key) => {
                let pressed = self.lines[line].sender.press(key);
                self.require(line, pressed, "press a key", now);
            }
            Action::Call { to, offer, headers } => {
                let called = self.place_call(line, &to, offer, &headers, now);
                self.require(line, called, "call", now);
            }
            Action::SpeakAhead => {
                let is_ringing = matches!(self.lines[line].call, Call::Ringing { .. });
                let possible = is_ringing && self.write_description(line, now).is_some();
                self.lines[line].follow(now);
                self.require(line, possible, "speak ahead", now);
            }
            Action::Ring | Action::EarlyMedia | Action::Answer | Action::Refuse { .. } => {
                let answered = self.answer_call(line, &action, now);
                self.require(line, answered, &format!("{action:?}"), now);
            }
            Action::Cancel => {
                let cancelled = match self.lines[line].call {
                    Call::Calling { invite, .. } => self.endpoint.cancel(invite, Headers::new(), now).is_ok(),
                    _ => false,
                };
                self.require(line, cancelled, "cancel", now);
            }
            Action::Info { .. } | Action::Request { .. } => self.request(line, action, now),
            Action::Refer(refer) => {
                let sent = self.send_refer(line, &refer, now);
                self.require(line, sent, "refer", now);
            }
            Action::HangUp => self.hang_up(line, now),
            Action::Prefer(_) if self.lines[line].is_idle() => self.lines[line].prefer(&action),
            Action::Hold(_)
            | Action::Retrieve
            | Action::Recode(_)
            | Action::AskForOffer
            | Action::Update(_)
            | Action::Prefer(_) => {
                if named.is_some() && action == Action::Retrieve && self.lines[line].is_talking() {
                    self.active = line;
                }
                let sent = self.reoffer(line, action.clone(), now);
                self.require(line, sent, &format!("{action:?}"), now);
            }
        }
    }

    /// The line of an action that names none.
    fn line_for(&self, action: &Action) -> usize {
        let active = &self.lines[self.active];
        let found = match action {
            Action::Call { .. } if active.is_talking() && active.is_holding() => {
                self.line_of(|call| *call == Call::Idle)
            }
            Action::Ring | Action::EarlyMedia | Action::SpeakAhead | Action::Answer | Action::Refuse { .. }
                if !matches!(active.call, Call::Ringing { .. }) =>
            {
                self.line_of(|call| matches!(call, Call::Ringing { .. }))
            }
            _ => None,
        };
        found.unwrap_or(self.active)
    }

    pub(super) fn require(&mut self, line: usize, possible: bool, action: &str, now: Instant) {
        if !possible {
            self.note(line, Happening::NotPossible { action: action.to_owned() }, now);
        }
    }

    fn vanish(&mut self) {
        self.vanished = true;
        self.out.clear();
        self.script.clear();
    }

    /// INFO, and whatever else goes in a dialog.
    fn request(&mut self, line: usize, action: Action, now: Instant) {
        let Call::Talking { dialog } = self.lines[line].call else {
            self.require(line, false, &format!("{action:?}"), now);
            return;
        };
        let (method, headers, body) = match action {
            Action::Info { content_type, body } => (Method::Info, Headers::new(), Some((content_type, body))),
            Action::Request { method, headers, body } => (method, header_lines(&headers), body),
            _ => return,
        };
        let is_ours = matches!(method, Method::Invite | Method::Update | Method::Ack | Method::Cancel | Method::Bye);
        let body = body.map(|(content_type, bytes)| Body { content_type, bytes });
        let sent = if is_ours { None } else { self.endpoint.request(dialog, method.clone(), headers, body, now).ok() };
        match sent {
            Some(_) if method == Method::Info => {}
            Some(request) => self.lines[line].asked.push((request, method)),
            None => self.require(line, false, &format!("send {method}"), now),
        }
    }
}
