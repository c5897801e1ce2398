"""The same stack kept by pyinfra's own operations; they prove nothing about its health."""

from pyinfra import host
from pyinfra.operations import docker, files

stack = host.data.stack

files.directory(path=stack["directory"], mode=host.data.directory_mode)
files.sync(src=stack["source"], dest=stack["directory"])
files.put(src=host.data.env_file, dest=f"{stack['directory']}/.env", mode="600")
docker.compose(project_directory=stack["directory"], project_name=stack["project"])
