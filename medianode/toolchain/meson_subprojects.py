"""Meson subprojects that provide the system's libraries.

The engine's meson.build takes its dependencies from subprojects, which would be downloaded. Each subproject here has
the same name and the same variables, but finds the library with pkg-config. Therefore the engine is linked against
libraries that the distribution keeps patched, and nothing is downloaded.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

_HEADERS = Path(__file__).parent


@dataclass(frozen=True)
class SystemSubproject:
    """A subproject that replaces a downloaded one.

    `dependencies`: variable → pkg-config names. `libraries`: variables that must name a library target; they are
    empty, because they are linked only into a library that is never built. `options`: name → default, the options
    that the engine's meson.build sets on this subproject. `headers`: the path that the engine includes → the file of
    this package. `headers_only`: the dependencies are not linked. `overrides`: the name under which the engine looks
    for the first dependency, if it does not use its variable.
    """

    name: str
    dependencies: dict[str, tuple[str, ...]]
    libraries: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    headers_only: bool = False
    overrides: str = ""

    def meson_build(self) -> str:
        lines = [f"project('{self.name}', 'c')"]
        lines += [f"{variable} = {self._dependency(packages)}" for variable, packages in self.dependencies.items()]
        lines += [f"{variable} = static_library('empty_{variable}', 'empty.c')" for variable in self.libraries]
        if self.overrides:
            lines.append(f"meson.override_dependency('{self.overrides}', {next(iter(self.dependencies))})")
        return "\n".join(lines) + "\n"

    def _dependency(self, packages: tuple[str, ...]) -> str:
        only = ".partial_dependency(compile_args: true, includes: true)" if self.headers_only else ""
        found = ", ".join(f"dependency('{package}'){only}" for package in packages)
        include = ", include_directories: include_directories('include')" if self.headers else ""
        return f"declare_dependency(dependencies: [{found}]{include})"

    def meson_options(self) -> str:
        return "".join(f"option('{name}', type: 'string', value: '{v}')\n" for name, v in self.options.items())

    def write(self, subprojects: Path) -> None:
        folder = subprojects / self.name
        folder.mkdir()
        (folder / "meson.build").write_text(self.meson_build())
        (folder / "meson_options.txt").write_text(self.meson_options())
        (folder / "empty.c").write_text("typedef int empty;\n")
        for included, file in self.headers.items():
            header = folder / "include" / included
            header.parent.mkdir(parents=True)
            shutil.copyfile(_HEADERS / file, header)


SYSTEM_SUBPROJECTS = (
    SystemSubproject("openssl", {"openssl_dep": ("openssl",)}, libraries=("libcrypto_lib", "libssl_lib")),
    SystemSubproject(
        "libuv",
        {"libuv_dep": ("libuv",)},
        libraries=("libuv",),
        options={"build_tests": "false", "build_benchmarks": "false"},
    ),
    SystemSubproject(
        "libsrtp3",
        {"libsrtp3_dep": ("libsrtp2",)},
        libraries=("libsrtp3",),
        options={"crypto-library": "openssl", "crypto-library-kdf": "disabled", "tests": "disabled"},
        headers={"srtp.h": "srtp3_on_libsrtp2.h"},
    ),
    SystemSubproject(
        "abseil-cpp",
        {
            "absl_container_dep": ("absl_raw_hash_set", "absl_flat_hash_map", "absl_hash"),
            "absl_strings_dep": ("absl_strings",),
            "absl_types_dep": ("absl_optional", "absl_variant", "absl_bad_optional_access"),
        },
        libraries=("absl_container_lib",),
    ),
    SystemSubproject(
        "unordered_dense",
        {"ankerl_unordered_dense_dep": ()},
        headers={"ankerl/unordered_dense.h": "unordered_dense.h"},
        overrides="unordered_dense",
    ),
    # The compiler of schemas is found by its name; the engine uses nothing but headers of the library.
    SystemSubproject(
        "flatbuffers", {"flatbuffers_dep": ("flatbuffers",)}, libraries=("flatbuffers_lib",), headers_only=True
    ),
)


def replace_subprojects(subprojects: Path) -> None:
    """Replaces all that meson would download into the folder `subprojects`."""
    for wrap in subprojects.glob("*.wrap"):
        wrap.unlink()
    for subproject in SYSTEM_SUBPROJECTS:
        subproject.write(subprojects)
