//! Any question to the JSON API: the answer is JSON, or says what is wrong with the question.

use std::fmt::Write as _;

use serde_json::Value;

use super::http::{exchange, status};

/// What can be asked.
const PATHS: [&str; 4] = ["units", "threads", "delays", "recordings"];

/// Takes the bytes as what stands behind the question mark; the first one says what is asked for.
///
/// # Panics
///
/// If answering does, or if the answer is not what it should be.
pub fn run(data: &[u8]) {
    let Some((&which, query)) = data.split_first() else {
        return;
    };
    let path = PATHS[usize::from(which) % PATHS.len()];
    // What may not stand in a request's first line is written as a browser would.
    let mut line = format!("GET /api/v1/{path}?");
    for &byte in query.iter().take(4 << 10) {
        if byte.is_ascii_alphanumeric() || b"=&%+*-._~!$'(),/:;?@".contains(&byte) {
            line.push(char::from(byte));
        } else {
            // Writing to a string can't fail.
            let _ = write!(line, "%{byte:02X}");
        }
    }
    let answer =
        exchange(format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
    let text = std::str::from_utf8(&answer).expect("all answers are text");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
    match status(&answer) {
        200 => {
            assert!(head.contains("content-type: application/json"), "{head}");
            let value: Result<Value, _> = serde_json::from_str(body);
            assert!(value.is_ok_and(|value| value.is_object()), "{body}");
        }
        400 | 404 => assert!(body.ends_with('\n') && body.len() > 10, "{body:?}"),
        other => panic!("status {other}: {head}"),
    }
}
