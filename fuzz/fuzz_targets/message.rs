//! A Kafka message: whatever bytes come, they are an activity that can be counted, or a reason why not.
//! The first byte is the length of the header `ce_type`, which follows; 255 is none.
#![no_main]

use activity_service::activity;
use libfuzzer_sys::fuzz_target;
use time::macros::datetime;

fuzz_target!(|bytes: &[u8]| {
    let Some((length, rest)) = bytes.split_first() else { return };
    let (ce_type, value) = match length {
        255 => (None, rest),
        length => {
            let (ce_type, value) = rest.split_at((*length as usize).min(rest.len()));
            (Some(ce_type), value)
        }
    };
    let now = datetime!(2026-11-25 12:00 UTC);
    match activity::parse(Some(value), ce_type, now) {
        Ok(activity) => {
            assert!(activity.at >= datetime!(2000-01-01 0:00 UTC) && activity.at <= datetime!(2026-11-26 12:00 UTC));
            assert!(serde_json::from_slice::<serde_json::Value>(value).is_ok_and(|value| value.is_object()));
            assert!(ce_type.is_none_or(|ce_type| ce_type.ends_with(b".v1")));
        }
        Err(why) => assert!(!why.detail.is_empty()),
    }
});
