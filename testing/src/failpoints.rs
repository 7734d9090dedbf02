//! The fail points of a service, as its sources have them: what breaks each of them leaves none out.

use std::{fs, path::Path};

use crate::root;

/// A place where a test may break the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailPoint {
    pub name: String,
    /// `return` kills the process here.
    pub kills: bool,
    /// What makes the step fail here, where that means anything: `return` or `return(error)`.
    pub fails: Option<&'static str>,
}

/// Every fail point below `<crate>/src` of these crates, by name.
#[must_use]
pub fn fail_points(crates: &[&str]) -> Vec<FailPoint> {
    let mut found = Vec::new();
    crates.iter().for_each(|one| search(&root().join(one).join("src"), &mut found));
    found.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(found.windows(2).all(|pair| pair[0].name != pair[1].name), "two of one name: {found:?}");
    found
}

fn search(folder: &Path, found: &mut Vec<FailPoint>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path, found);
        } else {
            let text = fs::read_to_string(path).unwrap();
            found.extend(text.split("fail_point!(\"").skip(1).map(of));
        }
    }
}

/// `text` begins with the name.
fn of(text: &str) -> FailPoint {
    let (name, rest) = text.split_once('"').unwrap();
    let does = rest.split_once(';').unwrap().0;
    let (kills, fails) = match () {
        () if does.contains("abort()") => (true, None),
        () if does.contains("failpoint::kill_or_fail") => (true, Some("return(error)")),
        () if does.contains("Err(") => (false, Some("return")),
        // Of a test of its own.
        () => (false, None),
    };
    FailPoint { name: name.to_owned(), kills, fails }
}
