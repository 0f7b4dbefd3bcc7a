//! The XML of a frame: `<GctiMsg>` with `<CallId>` and one message element.
//!
//! ```xml
//! <GctiMsg><CallId>00ABCDEF01234567</CallId><InitConf DestDN="2002" ReqId="7"/></GctiMsg>
//! <GctiMsg><CallId>00ABCDEF01234567</CallId><CallStatus Event="Held"/></GctiMsg>
//! <GctiMsg><CallId>00ABCDEF01234567</CallId><CallError FailedReq="InitConf" TLibErrCode="232" ReqId="7"/></GctiMsg>
//! ```
//!
//! A document type is refused whatever it says: there are no entities besides XML's own five, neither inner nor outer.
//! Unknown attributes are passed over; they are other servers' extensions.

use std::borrow::Cow;
use std::sync::Arc;

use roxmltree::{Document, Node, ParsingOptions};

use crate::id::ConnId;
use crate::views::ivr::message::{CallError, FailedReq, Message, Say};

/// Elements, attributes and texts of one message.
const MAX_NODES: u32 = 64;

/// Characters of a `CallId`, `ReqId` or `DestDN`.
const MAX_TEXT: usize = 128;

/// What a driver asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Of which call.
    pub call: ConnId,
    /// `ReqId`: it stands in the error, if there is one.
    pub req_id: Option<Arc<str>>,
    /// What.
    pub message: Message,
}

/// Why a body is no request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It is no message at all: an error frame says why.
    Frame(String),
    /// It is one that cannot be done: CallError to its sender.
    Call {
        /// `CallId` as it was written.
        call: String,
        /// What it is told.
        error: CallError,
    },
}

/// Reads the body of a frame.
///
/// # Errors
/// What the sender is told.
pub fn parse(body: &[u8]) -> Result<Asked, Refused> {
    let frame = |reason: &str| Refused::Frame(reason.to_owned());
    let text = std::str::from_utf8(body).map_err(|_| frame("the body is not UTF-8"))?;
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).map_err(|error| frame(&error.to_string()))?;
    let root = document.root_element();
    if root.tag_name().name() != "GctiMsg" {
        return Err(frame("the root element is not GctiMsg"));
    }
    let mut call = None;
    let mut request = None;
    for element in root.children().filter(Node::is_element) {
        let place = if element.tag_name().name() == "CallId" { &mut call } else { &mut request };
        if place.replace(element).is_some() {
            return Err(frame("GctiMsg has one CallId and one message"));
        }
    }
    let call = call.ok_or_else(|| frame("CallId is missing"))?;
    let call = call.text().unwrap_or_default().trim();
    let request = request.ok_or_else(|| frame("the message is missing"))?;
    let req_id = request.attribute("ReqId");
    if call.len() > MAX_TEXT || req_id.is_some_and(|id| id.len() > MAX_TEXT) {
        return Err(frame("CallId or ReqId is too long"));
    }
    let req_id: Option<Arc<str>> = req_id.map(Arc::from);
    let refused = |failed, code| {
        let error = CallError { failed, code, req_id: req_id.clone() };
        Refused::Call { call: call.to_owned(), error }
    };
    let message = match message(request) {
        Ok(message) => message,
        // T-Library: invalid attribute value.
        Err(Some(failed)) => return Err(refused(failed, Some(53))),
        Err(None) => return Err(refused(FailedReq::Unknown, None)),
    };
    // T-Library: invalid ConnectionID.
    let call = call.parse().map_err(|_| refused(FailedReq::NoSuchCall, Some(56)))?;
    Ok(Asked { call, req_id, message })
}

/// `Err(None)`: no such message; `Err(Some)`: its `DestDN` is missing or too long.
fn message(element: Node<'_, '_>) -> Result<Message, Option<FailedReq>> {
    let dest = element.attribute("DestDN").map(str::trim).unwrap_or_default();
    let to = dest.to_owned();
    let message = match element.tag_name().name() {
        "OneStepConf" => Message::OneStepConf { to },
        "InitConf" => Message::InitConf { to },
        "OneStepXfer" => Message::OneStepXfer { to },
        "InitXfer" => Message::InitXfer { to },
        "MakeCall" => Message::MakeCall { to },
        "CompleteConf" => return Ok(Message::CompleteConf),
        "CompleteXfer" => return Ok(Message::CompleteXfer),
        "RetrieveCall" => return Ok(Message::RetrieveCall),
        "EndCall" => return Ok(Message::EndCall),
        _ => return Err(None),
    };
    match dest.len() {
        1..=MAX_TEXT => Ok(message),
        _ => Err(Some(message.request())),
    }
}

/// The body that tells a driver something of a call.
pub fn body(call: &str, say: &Say) -> String {
    let told = match say {
        Say::Status(status) => format!("<CallStatus Event=\"{status}\"/>"),
        Say::Error(error) => {
            let mut told = format!("<CallError FailedReq=\"{}\"", error.failed);
            if let Some(code) = error.code {
                told += &format!(" TLibErrCode=\"{code}\"");
            }
            if let Some(req_id) = &error.req_id {
                told += &format!(" ReqId=\"{}\"", escape(req_id));
            }
            told + "/>"
        }
    };
    format!("<GctiMsg><CallId>{}</CallId>{told}</GctiMsg>", escape(call))
}

/// For texts and attributes in double quotes.
fn escape(text: &str) -> Cow<'_, str> {
    let needs = |c: char| matches!(c, '&' | '<' | '>' | '"' | '\'') || c.is_control();
    if !text.contains(needs) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            // What XML lets in is a tab and line ends; kept as they are by a reference only.
            c if c.is_control() => out.push_str(&format!("&#{};", u32::from(c))),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::ivr::message::Status;

    fn of(element: &str) -> Result<Asked, Refused> {
        parse(format!("<?xml version=\"1.0\"?>\n<GctiMsg>\n <CallId>1f</CallId>\n {element}\n</GctiMsg>").as_bytes())
    }

    #[test]
    fn every_message_of_a_driver_is_read() {
        let to = || "2002".to_owned();
        let rows = [
            ("<OneStepConf DestDN=\"2002\"/>", Message::OneStepConf { to: to() }),
            ("<InitConf DestDN=\"2002\"/>", Message::InitConf { to: to() }),
            ("<CompleteConf/>", Message::CompleteConf),
            ("<OneStepXfer DestDN='2002'></OneStepXfer>", Message::OneStepXfer { to: to() }),
            ("<InitXfer DestDN=\"2002\" Else=\"passed over\"/>", Message::InitXfer { to: to() }),
            ("<CompleteXfer/>", Message::CompleteXfer),
            ("<RetrieveCall/>", Message::RetrieveCall),
            ("<MakeCall DestDN=\"2002\"/>", Message::MakeCall { to: to() }),
            ("<EndCall/>", Message::EndCall),
        ];
        for (element, message) in rows {
            assert_eq!(of(element), Ok(Asked { call: ConnId(0x1f), req_id: None, message }), "{element}");
        }
        let with_id = of("<EndCall ReqId=\"a&lt;b\"/>").unwrap();
        assert_eq!(with_id.req_id.as_deref(), Some("a<b"));
    }

    #[test]
    fn what_is_no_message_is_answered_by_an_error_frame() {
        let bomb = "<!DOCTYPE GctiMsg [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]>\
                    <GctiMsg><CallId>&b;</CallId><EndCall/></GctiMsg>";
        let outside = "<!DOCTYPE GctiMsg [<!ENTITY f SYSTEM \"file:///etc/hostname\">]>\
                       <GctiMsg><CallId>&f;</CallId><EndCall/></GctiMsg>";
        let many = format!("<GctiMsg><CallId>1</CallId><EndCall>{}</EndCall></GctiMsg>", "<a/>".repeat(100));
        let deep = format!("<GctiMsg><CallId>1</CallId>{}", "<a>".repeat(5_000));
        let long = format!("<GctiMsg><CallId>{}</CallId><EndCall/></GctiMsg>", "1".repeat(200));
        let rows = [
            "",
            "EndCall",
            "<GctiMsg><CallId>1</CallId><EndCall></GctiMsg>",
            "<Other><CallId>1</CallId><EndCall/></Other>",
            "<GctiMsg><EndCall/></GctiMsg>",
            "<GctiMsg><CallId>1</CallId></GctiMsg>",
            "<GctiMsg><CallId>1</CallId><EndCall/><EndCall/></GctiMsg>",
            "<GctiMsg><CallId>1</CallId><CallId>2</CallId><EndCall/></GctiMsg>",
            "<GctiMsg><CallId>&unknown;</CallId><EndCall/></GctiMsg>",
            bomb,
            outside,
            &many,
            &deep,
            &long,
        ];
        for body in rows {
            let Err(Refused::Frame(reason)) = parse(body.as_bytes()) else { panic!("taken: {body}") };
            assert!(!reason.is_empty());
        }
        assert!(matches!(parse(b"<GctiMsg>\xff</GctiMsg>"), Err(Refused::Frame(_))));
    }

    #[test]
    fn a_message_that_cannot_be_done_is_a_call_error_with_its_call_id_and_req_id() {
        let rows = [
            ("<Sing ReqId=\"7\"/>", FailedReq::Unknown, None),
            ("<InitConf ReqId=\"7\"/>", FailedReq::InitConf, Some(53)),
            ("<OneStepXfer DestDN=\" \" ReqId=\"7\"/>", FailedReq::OneStepXfer, Some(53)),
        ];
        for (element, failed, code) in rows {
            let error = CallError { failed, code, req_id: Some("7".into()) };
            assert_eq!(of(element), Err(Refused::Call { call: "1f".into(), error }), "{element}");
        }
        let unknown = parse(b"<GctiMsg><CallId>no number</CallId><EndCall/></GctiMsg>");
        let error = CallError { failed: FailedReq::NoSuchCall, code: Some(56), req_id: None };
        assert_eq!(unknown, Err(Refused::Call { call: "no number".into(), error }));
    }

    #[test]
    fn what_is_told_is_xml_that_reads_back_what_the_driver_wrote() {
        let held = body("1F", &Say::Status(Status::Held));
        assert_eq!(held, "<GctiMsg><CallId>1F</CallId><CallStatus Event=\"Held\"/></GctiMsg>");
        let req_id = "\"<&'>\t";
        let error = CallError { failed: FailedReq::InitConf, code: Some(232), req_id: Some(req_id.into()) };
        let told = body("<1>", &Say::Error(error));
        let document = Document::parse(&told).unwrap();
        let element = document.root_element().last_element_child().unwrap();
        assert_eq!(document.root_element().first_element_child().unwrap().text(), Some("<1>"));
        let attributes: Vec<_> = element.attributes().map(|found| (found.name(), found.value())).collect();
        assert_eq!(attributes, [("FailedReq", "InitConf"), ("TLibErrCode", "232"), ("ReqId", req_id)]);
    }
}
