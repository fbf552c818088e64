//! `#[mobula::task]`: a plain function, and a struct that carries its arguments to another node.
//!
//! `square::task` lives on an empty enum called `square`, which shares its name with the function as a module would.
//! Unlike a module it is in the user's scope, so that types keep their meaning and a task may be inside a function.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{FnArg, ItemFn};

use crate::{
    attributes::{Carried, Options, refuse_cfg},
    errors::Errors,
    names::{task_ident, wire_name},
    schema,
    signature::{Role, check_qualifiers, read_args, read_reply},
};

/// With errors, only the user's function is left, so that no error follows from another.
pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    let function: ItemFn = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            let what = "`#[mobula::task]` goes on a plain function with a body";
            let error = syn::Error::new(error.span(), format!("{error}; {what}")).into_compile_error();
            return quote!(#item #error);
        }
    };
    match companions(options, &function) {
        Ok(companions) => quote!(#function #companions),
        Err(errors) => {
            let errors = errors.into_compile_error();
            quote!(#function #errors)
        }
    }
}

fn companions(options: TokenStream, function: &ItemFn) -> syn::Result<TokenStream> {
    let (vis, sig, ident) = (&function.vis, &function.sig, &function.sig.ident);
    let mut errors = Errors::default();
    let options = Options::parse_task(options).unwrap_or_else(|error| {
        errors.push(error);
        Options::default()
    });
    refuse_cfg(&function.attrs, "above `#[mobula::task]`", &mut errors);
    if let Some(FnArg::Receiver(receiver)) = sig.inputs.first() {
        errors.refuse(
            receiver,
            "a task has no `self`: make it a function outside the `impl` block, or an actor's method with `#[mobula::actor]`",
        );
    }
    check_qualifiers(sig, Role::Task, &mut errors);
    let args = read_args(sig, Role::Task, &mut errors);
    let output = read_reply(sig, Role::Task, &mut errors).into_token_stream();
    errors.finish()?;

    let task = task_ident(ident);
    let name = wire_name(options.name.as_ref(), ident, "");
    let schema = schema::of_args(&args, &output);
    let (names, types): (Vec<_>, Vec<_>) = args.iter().map(|arg| (&arg.ident, &arg.ty)).unzip();
    let field_docs = names.iter().map(|name| format!("The argument `{name}`."));
    let body = match args.is_empty() {
        true => quote!(;),
        false => quote!({ #(#[doc = #field_docs] #vis #names: #types,)* }),
    };
    let struct_docs = format!("A call of `{ident}`, as it travels to the node that runs it.");
    let enum_docs = format!("Holds `{ident}::task`; the function of the same name still runs in the caller.");
    let task_docs = Carried::of(&function.attrs)
        .docs_after(&format!("Describes a call of `{ident}`, to be submitted to a cluster."));
    Ok(quote! {
        #[doc = #struct_docs]
        #[allow(missing_debug_implementations, unreachable_pub)]
        #[derive(::core::clone::Clone, ::mobula::serde::Serialize, ::mobula::serde::Deserialize)]
        #[serde(crate = "::mobula::serde")]
        #vis struct #task #body

        impl ::mobula::RemoteTask for #task {
            const NAME: &'static str = #name;
            const SCHEMA: u64 = #schema;
            type Output = #output;

            #[allow(deprecated, clippy::used_underscore_binding)]
            fn run(self) -> Self::Output {
                let Self { #(#names),* } = self;
                #ident(#(#names),*)
            }
        }

        ::mobula::register_task!(#task);

        #[doc = #enum_docs]
        #[allow(dead_code, missing_debug_implementations, non_camel_case_types, unreachable_pub)]
        #vis enum #ident {}

        #[allow(dead_code, unreachable_pub, clippy::too_many_arguments, clippy::used_underscore_binding)]
        impl #ident {
            #task_docs
            #vis fn task(#(#names: #types),*) -> ::mobula::TaskSpec<#task> {
                ::mobula::TaskSpec::new(#task { #(#names),* })
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expansion(source: &str) -> String {
        expand(TokenStream::new(), syn::parse_str(source).expect("tokens")).to_string()
    }

    #[test]
    fn a_task_keeps_its_function_and_its_visibility() {
        let tokens = expansion("pub(crate) fn square(mut x: u64) -> u64 { x * x }");
        for part in [
            quote!(
                pub(crate) fn square(mut x: u64) -> u64 {
                    x * x
                }
            ),
            quote!(
                pub(crate) struct SquareTask {
                    #[doc = "The argument `x`."]
                    pub(crate) x: u64,
                }
            ),
            quote!(::core::concat!(::core::env!("CARGO_PKG_NAME"), "::", "square")),
            quote!(
                type Output = u64;
            ),
            quote!(let Self { x } = self; square(x)),
            quote!(::mobula::register_task!(SquareTask);),
            quote!(pub(crate) fn task(x: u64) -> ::mobula::TaskSpec<SquareTask>),
        ] {
            assert!(tokens.contains(&part.to_string()), "{part} is not in {tokens}");
        }
    }

    #[test]
    fn a_task_without_arguments_or_result() {
        let tokens = expansion("fn tick() {}");
        for part in [
            quote!(
                struct TickTask;
            ),
            quote!(
                type Output = ();
            ),
            quote!(TickTask {}),
        ] {
            assert!(tokens.contains(&part.to_string()), "{part} is not in {tokens}");
        }
    }

    #[test]
    fn a_name_can_be_given() {
        let tokens = expand(
            quote!(name = "math::sq"),
            quote!(
                fn square(x: u64) -> u64 {
                    x
                }
            ),
        )
        .to_string();
        assert!(tokens.contains("const NAME : & 'static str = \"math::sq\""), "{tokens}");
    }

    #[test]
    fn errors_leave_the_function_alone() {
        for (source, text) in [
            ("fn f(self) {}", "a task has no `self`"),
            ("fn f<T>(x: T) {}", "a task cannot be generic"),
            ("#[cfg(test)] fn f() {}", "put `#[cfg(..)]` above `#[mobula::task]`"),
            ("struct S;", "goes on a plain function"),
        ] {
            let tokens = expansion(source);
            assert!(tokens.contains(text), "{tokens}");
            assert!(tokens.contains(&source.parse::<TokenStream>().expect("tokens").to_string()), "{tokens}");
            assert!(!tokens.contains("RemoteTask"), "{tokens}");
        }
    }
}
