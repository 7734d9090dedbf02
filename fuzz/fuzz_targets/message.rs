//! A Kafka message: whatever bytes come, they are an activity that can be counted, or a reason why not.
//! The first byte is the length of the header `ce_type`, which follows; 255 is none.
#![no_main]

use activity_service::activity;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;

fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first() else { return };
    let (ce_type, value) = match length {
        255 => (None, rest),
        length => {
            let (ce_type, value) = rest.split_at((*length as usize).min(rest.len()));
            (Some(ce_type), value)
        }
    };
    match activity::parse(Some(value), ce_type) {
        Ok(_) => {
            // By the grammar alone: half a surrogate pair in a field that nobody needs is JSON all the same.
            assert!(serde_json::from_slice::<IgnoredAny>(value).is_ok() && value.trim_ascii_start().starts_with(b"{"));
            assert!(ce_type.is_none_or(|ce_type| ce_type.ends_with(b".v1")));
        }
        Err(why) => assert!(!why.detail.is_empty()),
    }
});
