fn main() {
    // The migrations are embedded; cargo does not see them on its own.
    println!("cargo:rerun-if-changed=migrations");
}
