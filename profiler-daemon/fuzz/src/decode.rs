//! The bytes of ring slots: each is an event, and the same bytes again, or says what is wrong with it.

use profiler_ebpf::{KIND_OFFSET, Kind, RECORD_BYTES, RawRecord};
use schedscope::core::decode::{Event, UnknownKind};

/// Takes the bytes as slots of a ring.
///
/// # Panics
///
/// If one of them decodes to something else.
pub fn run(data: &[u8]) {
    let (slots, _) = data.as_chunks::<RECORD_BYTES>();
    for slot in slots {
        let raw = RawRecord(*slot);
        let number = slot[KIND_OFFSET];
        match Event::decode(&raw) {
            Ok(event) => {
                assert_eq!(event.encode(), raw, "it comes back bit by bit");
                assert_eq!(event.kind() as u8, number);
                assert_eq!(event.ts_ns().to_ne_bytes(), slot[..8]);
            }
            Err(UnknownKind(unknown)) => {
                assert_eq!(unknown, number);
                let kind = Kind::from_wire(number);
                assert!(matches!(kind, None | Some(Kind::Doorbell)), "{kind:?}");
            }
        }
    }
}
