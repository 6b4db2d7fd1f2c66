//! Has the console built in anew when a page comes or goes; that one changes, the compiler sees by itself.

fn main() {
    println!("cargo::rerun-if-changed=console");
    println!("cargo::rerun-if-changed=../client/src");
}
