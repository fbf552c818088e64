//! `#[mobula::main]`: hands the async body to `mobula::run_main`, which decides whether this process is a node.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, ItemFn};

use crate::errors::Errors;

/// With errors, an empty `main` takes the place of the user's, so that the compiler does not also miss one.
pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    let function: ItemFn = match syn::parse2(item) {
        Ok(function) => function,
        Err(error) => return error.into_compile_error(),
    };
    if let Err(errors) = check(options, &function) {
        let errors = errors.into_compile_error();
        return quote!(#errors fn main() {});
    }
    let (outside, inside): (Vec<_>, Vec<_>) = function.attrs.iter().partition(|attr| is_outside(attr));
    let (vis, sig, block) = (&function.vis, &function.sig, &function.block);
    // A nested function, not an async block: `?` then knows the error type that the user wrote.
    quote! {
        #(#outside)*
        #vis fn main() -> ::std::process::ExitCode {
            #(#inside)*
            #sig #block

            ::mobula::run_main(main())
        }
    }
}

fn check(options: TokenStream, function: &ItemFn) -> syn::Result<()> {
    let (mut errors, sig) = (Errors::default(), &function.sig);
    if !options.is_empty() {
        errors.refuse(&options, "`#[mobula::main]` takes no options: configure the cluster with `Cluster::builder()`");
    }
    if sig.ident != "main" {
        let message = "`#[mobula::main]` goes on `main`, where a process can become a node before anything else runs";
        errors.refuse(&sig.ident, message);
    }
    if sig.asyncness.is_none() {
        errors.refuse(sig.fn_token, "`#[mobula::main]` runs an async function: write `async fn main()`");
    }
    if !sig.inputs.is_empty() {
        errors.refuse(&sig.inputs, "`main` takes no arguments: read the command line with `std::env::args`");
    }
    if !sig.generics.params.is_empty() {
        errors.refuse(&sig.generics, "`main` cannot be generic: remove the parameters");
    }
    errors.finish()
}

/// Attributes that speak of `main` as the compiler sees it; others may need the async function.
fn is_outside(attr: &Attribute) -> bool {
    ["cfg", "doc"].iter().any(|name| attr.path().is_ident(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_becomes_a_nested_async_function() {
        let tokens = expand(
            TokenStream::new(),
            quote! {
                /// Words.
                #[allow(dead_code)]
                async fn main() -> Result<(), E> { work().await }
            },
        );
        let expected = quote! {
            /// Words.
            fn main() -> ::std::process::ExitCode {
                #[allow(dead_code)]
                async fn main() -> Result<(), E> { work().await }

                ::mobula::run_main(main())
            }
        };
        assert_eq!(tokens.to_string(), expected.to_string());
    }

    #[test]
    fn misuse_is_told_and_a_main_remains() {
        for (options, source, text) in [
            (
                quote!(),
                quote!(
                    fn main() {}
                ),
                "write `async fn main()`",
            ),
            (
                quote!(),
                quote!(
                    async fn start() {}
                ),
                "goes on `main`",
            ),
            (
                quote!(),
                quote!(
                    async fn main(x: u8) {}
                ),
                "`std::env::args`",
            ),
            (
                quote!(),
                quote!(
                    async fn main<T>() {}
                ),
                "remove the parameters",
            ),
            (
                quote!(threads = 3),
                quote!(
                    async fn main() {}
                ),
                "`Cluster::builder()`",
            ),
        ] {
            let tokens = expand(options, source).to_string();
            assert!(tokens.contains(text), "{tokens}");
            assert!(tokens.ends_with("fn main () { }"), "{tokens}");
        }
    }
}
