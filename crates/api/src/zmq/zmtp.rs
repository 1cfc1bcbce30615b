//! The side of a publisher in ZMTP 3.0 (ZeroMQ RFC 23) without security (the NULL mechanism).

use bytes::{Buf, Bytes, BytesMut};

/// What both sides send first: signature, version 3.0, the mechanism's name, and that we are no server of it.
pub(super) const GREETING: [u8; GREETING_BYTES] = {
    let mut greeting = [0; GREETING_BYTES];
    greeting[0] = 0xff;
    greeting[8] = 1;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    let mechanism = *b"NULL";
    let mut at = 0;
    while at < mechanism.len() {
        greeting[MECHANISM.start + at] = mechanism[at];
        at += 1;
    }
    greeting
};
/// The length of a greeting.
pub(super) const GREETING_BYTES: usize = 64;
const MECHANISM: std::ops::Range<usize> = 12..32;

/// More frames of the same message follow.
const MORE: u8 = 1;
/// The length takes eight bytes.
const LONG: u8 = 2;
/// The frame is a command.
const COMMAND: u8 = 4;

/// The longest frame that a subscriber has reason to send: a topic, or the particulars of itself.
const MAX_FRAME: usize = 4096;

/// A subscriber that does not speak as it should.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ZmtpError {
    #[error("it does not speak ZMTP 3 without security")]
    Greeting,
    #[error("it sent a frame of {0} bytes")]
    TooLong(u64),
    #[error("it sent a frame that means nothing: flags {0:#x}")]
    Flags(u8),
    #[error("it is no subscriber")]
    NotSubscriber,
}

/// Whether a subscriber's greeting is one that we can go on with.
pub(super) fn check_greeting(greeting: &[u8; GREETING_BYTES]) -> Result<(), ZmtpError> {
    let good =
        greeting[0] == 0xff && greeting[9] & 1 == 1 && greeting[10] >= 3 && greeting[MECHANISM] == GREETING[MECHANISM];
    if good { Ok(()) } else { Err(ZmtpError::Greeting) }
}

/// The command by which we say that we publish.
pub(super) fn ready() -> Vec<u8> {
    let mut body = b"\x05READY".to_vec();
    for (name, value) in [("Socket-Type", "PUB"), ("Identity", "")] {
        // Both are short by themselves.
        body.push(name.len() as u8);
        body.extend(name.as_bytes());
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(value.as_bytes());
    }
    let mut frame = Vec::new();
    push_frame(&mut frame, COMMAND, &body);
    frame
}

fn push_frame(out: &mut Vec<u8>, flags: u8, body: &[u8]) {
    match u8::try_from(body.len()) {
        Ok(length) => out.extend([flags, length]),
        Err(_) => {
            out.push(flags | LONG);
            out.extend((body.len() as u64).to_be_bytes());
        }
    }
    out.extend(body);
}

/// A message of several parts.
pub(super) fn message(parts: &[&[u8]]) -> Bytes {
    let mut out = Vec::with_capacity(parts.iter().map(|part| part.len() + 9).sum());
    for (index, part) in parts.iter().enumerate() {
        let flags = if index + 1 < parts.len() { MORE } else { 0 };
        push_frame(&mut out, flags, part);
    }
    out.into()
}

/// What a subscriber says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It wants messages that begin with this.
    Subscribe(Bytes),
    /// It no longer wants them.
    Cancel(Bytes),
    /// It wants to hear this frame, to know that we live.
    Ping(Bytes),
    /// What says nothing to a publisher.
    Nothing,
}

/// Takes the next frame out of what has arrived; `None` while it is not complete.
pub(super) fn next_frame(buffer: &mut BytesMut) -> Result<Option<(u8, Bytes)>, ZmtpError> {
    let Some(&flags) = buffer.first() else { return Ok(None) };
    if flags & !(MORE | LONG | COMMAND) != 0 {
        return Err(ZmtpError::Flags(flags));
    }
    let (head, length) = if flags & LONG == 0 {
        match buffer.get(1) {
            Some(length) => (2, u64::from(*length)),
            None => return Ok(None),
        }
    } else {
        match buffer.get(1..9).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => (9, u64::from_be_bytes(bytes)),
            None => return Ok(None),
        }
    };
    let size = usize::try_from(length).ok().filter(|size| *size <= MAX_FRAME);
    let size = size.ok_or(ZmtpError::TooLong(length))?;
    if buffer.len() < head + size {
        return Ok(None);
    }
    buffer.advance(head);
    Ok(Some((flags, buffer.split_to(size).freeze())))
}

/// Whether the first command of the other side makes it a subscriber.
pub(super) fn check_ready(flags: u8, body: &[u8]) -> Result<(), ZmtpError> {
    let mut rest = body
        .strip_prefix(b"\x05READY")
        .filter(|_| flags & COMMAND != 0)
        .ok_or(ZmtpError::NotSubscriber)?;
    let mut take = |count: usize| -> Option<&[u8]> {
        let (taken, after) = rest.split_at_checked(count)?;
        rest = after;
        Some(taken)
    };
    loop {
        let Some(name) = take(1).and_then(|length| take(usize::from(length[0]))) else {
            return Err(ZmtpError::NotSubscriber);
        };
        let value = take(4)
            .and_then(|length| length.try_into().ok())
            .and_then(|length| take(usize::try_from(u32::from_be_bytes(length)).ok()?));
        let value = value.ok_or(ZmtpError::NotSubscriber)?;
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            return match value {
                b"SUB" | b"XSUB" => Ok(()),
                _ => Err(ZmtpError::NotSubscriber),
            };
        }
    }
}

/// What a frame says once both sides are ready. Subscriptions are messages in ZMTP 3.0 and commands in 3.1.
pub(super) fn said(flags: u8, body: &Bytes) -> Said {
    let after = |prefix: &[u8]| body.starts_with(prefix).then(|| body.slice(prefix.len()..));
    if flags & COMMAND == 0 {
        return match body.first() {
            Some(1) => Said::Subscribe(body.slice(1..)),
            Some(0) => Said::Cancel(body.slice(1..)),
            _ => Said::Nothing,
        };
    }
    if let Some(topic) = after(b"\x09SUBSCRIBE") {
        return Said::Subscribe(topic);
    }
    if let Some(topic) = after(b"\x06CANCEL") {
        return Said::Cancel(topic);
    }
    // Two bytes say how long to wait; the rest comes back.
    match after(b"\x04PING").and_then(|rest| rest.get(2..).map(<[u8]>::to_vec)) {
        Some(context) => {
            let mut pong = Vec::new();
            push_frame(&mut pong, COMMAND, &[b"\x04PONG", &context[..]].concat());
            Said::Ping(pong.into())
        }
        None => Said::Nothing,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8]) -> Result<Vec<(u8, Bytes)>, ZmtpError> {
        let mut buffer = BytesMut::from(bytes);
        let mut found = Vec::new();
        while let Some(frame) = next_frame(&mut buffer)? {
            found.push(frame);
        }
        Ok(found)
    }

    #[test]
    fn frames_are_read_when_complete_and_refused_when_long() {
        assert_eq!(
            frames(b"\x00\x02\x01a\x04").unwrap(),
            [(0, Bytes::from_static(b"\x01a"))]
        );
        assert_eq!(frames(b"\x02\0\0\0\0\0\0\0\x01").unwrap(), []);
        assert_eq!(
            frames(b"\x02\0\0\0\0\0\0\0\x01x").unwrap(),
            [(2, Bytes::from_static(b"x"))]
        );
        assert_eq!(
            frames(b"\x02\0\0\0\0\0\x01\0\0").unwrap_err(),
            ZmtpError::TooLong(65_536)
        );
        assert_eq!(frames(b"\x10\x00").unwrap_err(), ZmtpError::Flags(0x10));
    }

    #[test]
    fn subscribers_are_told_from_others() {
        check_greeting(&GREETING).unwrap();
        let mut curve = GREETING;
        curve[12..17].copy_from_slice(b"CURVE");
        assert_eq!(check_greeting(&curve), Err(ZmtpError::Greeting));
        let hello = |kind: &[u8]| {
            let length = [0, 0, 0, kind.len() as u8];
            [b"\x05READY\x0bSocket-Type", &length[..], kind].concat()
        };
        assert_eq!(check_ready(COMMAND, &hello(b"SUB")), Ok(()));
        assert_eq!(check_ready(0, &hello(b"SUB")), Err(ZmtpError::NotSubscriber));
        assert_eq!(check_ready(COMMAND, &hello(b"PUSH")), Err(ZmtpError::NotSubscriber));
        assert_eq!(
            check_ready(COMMAND, b"\x05READY\x0bSocket-Ty"),
            Err(ZmtpError::NotSubscriber)
        );
        assert_eq!(
            check_ready(COMMAND, b"\x05READY\x01a\xff\xff\xff\xff"),
            Err(ZmtpError::NotSubscriber)
        );
    }

    #[test]
    fn both_forms_of_a_subscription_are_understood() {
        let topic = Bytes::from_static(b"raw");
        assert_eq!(said(0, &Bytes::from_static(b"\x01raw")), Said::Subscribe(topic.clone()));
        assert_eq!(said(0, &Bytes::from_static(b"\x00raw")), Said::Cancel(topic.clone()));
        assert_eq!(
            said(COMMAND, &Bytes::from_static(b"\x09SUBSCRIBEraw")),
            Said::Subscribe(topic.clone())
        );
        assert_eq!(
            said(COMMAND, &Bytes::from_static(b"\x06CANCELraw")),
            Said::Cancel(topic)
        );
        let pong = Bytes::from_static(b"\x04\x07\x04PONGhi");
        assert_eq!(said(COMMAND, &Bytes::from_static(b"\x04PING\0\0hi")), Said::Ping(pong));
        assert_eq!(said(COMMAND, &Bytes::from_static(b"\x04PING\0")), Said::Nothing);
    }

    #[test]
    fn a_message_has_its_parts_in_frames() {
        let long = vec![7; 300];
        let bytes = message(&[b"rawtx", &long, &[1, 0, 0, 0]]);
        let parts = frames(&bytes).unwrap();
        assert_eq!(parts[0], (MORE, Bytes::from_static(b"rawtx")));
        assert_eq!((parts[1].0, parts[1].1.len()), (MORE | LONG, 300));
        assert_eq!(parts[2], (0, Bytes::from_static(&[1, 0, 0, 0])));
    }
}
