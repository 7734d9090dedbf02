//! The migrations are compiled in: a new file has to rebuild the program.

fn main() {
    println!("cargo:rerun-if-changed=../migrations/activity");
}
