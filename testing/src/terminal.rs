//! What commands of both services have in common for whoever types them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{Database, Setup, server::free_port};

/// `program` has no settings, `list` is a command that lists something of `database`, and `others` ask nothing else, too.
///
/// # Panics
/// A command is not as it should be.
pub async fn commands_are_kind(program: Setup, list: &[&str], others: &[&[&str]], database: &Database) {
    // Nothing but the address of the database: neither who may call nor where Kafka is, with which nobody talks.
    let with_database = program.clone().set("database.url", database.url());
    let without_kafka = with_database.clone().set("kafka.brokers", "broker.example:9092");
    let listed = without_kafka.run(list).await;
    let told = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.status.code(), Some(0), "{}", String::from_utf8_lossy(&listed.stderr));
    assert!(told.starts_with("There are no") && told.lines().count() == 1, "an empty list is a sentence: {told}");
    for other in others {
        let done = without_kafka.run(other).await;
        assert_eq!(done.status.code(), Some(0), "{other:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    let all = || others.iter().copied().chain([list]);
    for command in all() {
        let unsettled = program.run(command).await;
        assert_eq!(String::from_utf8(unsettled.stderr).unwrap(), "database.url: is required\n");
    }

    let port = free_port();
    let begun = Instant::now();
    let away = program.clone().set("database.url", format!("postgres://user:canary@127.0.0.1:{port}/away"));
    for command in all().chain([&["migrate"][..]]) {
        let done = away.run(command).await;
        let told = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{told}");
        assert!(told.contains(&format!("127.0.0.1:{port}")) && told.contains("refused"), "{told}");
        assert!(told.lines().count() == 1 && !told.contains("canary"), "{told}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "5 s each: {:?}", begun.elapsed());

    for (command, begins) in [("man", ".ie"), ("completions", "_")] {
        let arguments: &[&str] = if command == "man" { &["man"] } else { &["completions", "bash"] };
        let done = program.run(arguments).await;
        let text = String::from_utf8(done.stdout).unwrap();
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
        assert!(text.starts_with(begins) && text.contains("migrate"), "{text}");
    }
    for command in [list, &["man"], &["completions", "zsh"], &["config"]] {
        let [(closed, _), (full, told)] = with_database.clone().set("auth.mode", "disabled").run_unread(command).await;
        assert_eq!((closed, full), (Some(0), Some(1)), "{command:?}: {told}");
        assert!(!told.contains("panicked") && told.contains("No space left"), "{command:?}: {told}");
    }
}

/// Each command of `program` that the documents show is there, with the options that they show.
///
/// # Panics
/// One is not.
pub async fn what_documents_show_is_there(program: &Setup, name: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut shown = BTreeSet::new();
    for document in documents(&root) {
        for line in code(&fs::read_to_string(&document).unwrap()) {
            shown.extend(commands(&line, name));
        }
    }
    assert!(shown.len() > 5, "documents are read: {shown:?}");
    for command in shown {
        let (words, options): (Vec<&str>, Vec<_>) =
            command.iter().map(String::as_str).partition(|w| !w.starts_with("--"));
        let done = program.run(&[words.as_slice(), &["--help"]].concat()).await;
        let help = String::from_utf8(done.stdout).unwrap();
        assert_eq!(done.status.code(), Some(0), "the documents show {name} {command:?}");
        for option in options {
            assert!(help.contains(option), "the documents show {name} {command:?}");
        }
    }
}

fn documents(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in [root.to_owned(), root.join("docs"), root.join("docs/decisions")] {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        found.extend(entries.filter(|path| path.extension().is_some_and(|end| end == "md")));
    }
    found
}

/// What stands as code: between backticks, or indented. A bar inside a table has a backslash.
fn code(document: &str) -> Vec<String> {
    let indented = document.lines().filter(|line| line.starts_with("    "));
    let inline = document.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    indented.chain(inline).map(|text| text.replace('\\', "")).collect()
}

/// The words and options that follow `name` wherever it is the program; of words between bars each by itself.
fn commands(line: &str, name: &str) -> Vec<Vec<String>> {
    // A drawing has the names of both programs beside each other.
    let is_word = |text: &str| {
        let is_of_a_word = |c: char| c.is_ascii_lowercase() || c == '-';
        text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.chars().all(is_of_a_word)
            && !text.ends_with("-service")
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    // Behind nothing, behind what ends another command, or behind a variable that is set for it.
    let is_program = |at: usize| match at.checked_sub(1).map(|before| words[before]) {
        None | Some("--" | "&&" | ";" | "|") => true,
        Some(before) => before.contains('='),
    };
    let mut found = Vec::new();
    for start in (0..words.len()).filter(|at| words[*at] == name && is_program(*at)).map(|at| at + 1) {
        let rest = words[start..].iter().take_while(|word| !["|", "&&", ";", "#", ">"].contains(*word));
        let mut of_this: Vec<Vec<String>> = vec![Vec::new()];
        for word in rest.clone().take_while(|word| word.split('|').all(is_word)) {
            let longer = |one: &String, before: &Vec<String>| [before.as_slice(), std::slice::from_ref(one)].concat();
            let choices: Vec<String> = word.split('|').map(str::to_owned).collect();
            of_this = choices
                .iter()
                .flat_map(|one| of_this.iter().map(|before| longer(one, before)).collect::<Vec<_>>())
                .collect();
        }
        let options = rest.map(|word| word.trim_matches(['[', ']'])).filter(|word| word.starts_with("--"));
        let options: Vec<String> = options.map(|word| word.split('=').next().unwrap_or(word).to_owned()).collect();
        found.extend(of_this.into_iter().filter(|one| !one.is_empty()).map(|one| [one, options.clone()].concat()));
    }
    found
}
