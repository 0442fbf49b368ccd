"""What surrounds the arithmetic: the compiler and its cache, the processor, what autograd keeps, who watches."""
