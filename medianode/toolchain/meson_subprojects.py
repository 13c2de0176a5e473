"""Meson subprojects that provide the system's libraries.

The engine's meson.build takes every dependency from a subproject, which would be downloaded. Each subproject here has
the same name and the same variables, but finds the library with pkg-config. Therefore the engine is linked against
libraries that the distribution keeps patched, and nothing is downloaded.
"""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class SystemSubproject:
    """A subproject that replaces a downloaded one.

    `dependencies`: variable → pkg-config names. `libraries`: variables that must name a library target; they are
    empty, because they are linked only into a library that is never built. `options`: name → default, the options
    that the engine's meson.build sets on this subproject.
    """

    name: str
    dependencies: dict[str, tuple[str, ...]]
    libraries: tuple[str, ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    subfolder_of_headers: str = ""

    def meson_build(self) -> str:
        lines = [f"project('{self.name}', 'c')"]
        for variable, packages in self.dependencies.items():
            found = ", ".join(f"dependency('{package}')" for package in packages)
            args = ""
            if self.subfolder_of_headers:
                folder = f"dependency('{packages[0]}').get_variable('includedir') / '{self.subfolder_of_headers}'"
                args = f", compile_args: '-I' + {folder}"
            lines.append(f"{variable} = declare_dependency(dependencies: [{found}]{args})")
        lines += [f"{variable} = static_library('empty_{variable}', 'empty.c')" for variable in self.libraries]
        return "\n".join(lines) + "\n"

    def meson_options(self) -> str:
        return "".join(f"option('{name}', type: 'string', value: '{v}')\n" for name, v in self.options.items())

    def write(self, subprojects: Path) -> None:
        """Replaces the subproject's `.wrap` file in the folder `subprojects`."""
        (subprojects / f"{self.name}.wrap").unlink(missing_ok=True)
        folder = subprojects / self.name
        folder.mkdir()
        (folder / "meson.build").write_text(self.meson_build())
        (folder / "meson_options.txt").write_text(self.meson_options())
        (folder / "empty.c").write_text("typedef int empty;\n")


SYSTEM_SUBPROJECTS = (
    SystemSubproject("openssl", {"openssl_dep": ("openssl",)}, libraries=("libcrypto_lib", "libssl_lib")),
    SystemSubproject("nlohmann_json", {"nlohmann_json_dep": ("nlohmann_json",)}),
    SystemSubproject(
        "libuv",
        {"libuv_dep": ("libuv",)},
        libraries=("libuv",),
        options={"build_tests": "false", "build_benchmarks": "false"},
    ),
    SystemSubproject(
        "libsrtp2",
        {"libsrtp2_dep": ("libsrtp2",)},
        libraries=("libsrtp2",),
        options={"crypto-library": "openssl", "crypto-library-kdf": "disabled", "tests": "disabled"},
        # The engine includes <srtp.h>, Debian has it as <srtp2/srtp.h>.
        subfolder_of_headers="srtp2",
    ),
    SystemSubproject(
        "usrsctp",
        {"usrsctp_dep": ("usrsctp",)},
        libraries=("usrsctp",),
        options={"sctp_build_programs": "false"},
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
    SystemSubproject("catch2", {"catch2_dep": ()}),
)
