# A function's name without what changes though the function does not: disambiguators of crates and places of references back (v0
# mangling, https://doc.rust-lang.org/rustc/symbol-mangling/v0.html), and what LLVM appends to names that were a module's own.
s/\.llvm\.[0-9]+$//
s/Cs[0-9A-Za-z]+_/C/g
s/B[0-9A-Za-z]{0,2}_/B_/g
