module mayfly.dev/binding

go 1.24.0
